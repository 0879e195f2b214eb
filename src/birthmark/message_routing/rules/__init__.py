"""Rules of message routing: pure, without clock, randomness or IO."""
