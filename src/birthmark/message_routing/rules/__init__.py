"""What decides about messages that leave: no clock, no dice, no IO."""
