"""Resource limits of one connection."""

import msgspec


class AmqpLimits(msgspec.Struct, frozen=True):
    """Bounds of one connection; a peer that exceeds one receives the error of the smallest scope."""

    # Announced to the peer
    max_frame_bytes: int = 65_536
    max_channel: int = 1199
    max_handle: int = 255
    max_message_bytes: int = 262_144
    incoming_window: int = 2048  # transfers of a session; renewed at half
    link_credit: int = 100  # deliveries of a link that are not settled; renewed at half
    idle_timeout_ms: int = 240_000  # a peer may be silent for twice this time

    # Counts
    max_sessions: int = 1200  # SDKs for Java and .NET open one for each multiplexed device
    max_links: int = 255  # of a session
    max_links_in_all: int = 8192  # of a connection
    max_unsettled: int = 500  # deliveries of a session that the peer has not settled
    max_queued_messages: int = 50  # of a sender link, while it has no credit: responses
    max_link_queued_bytes: int = 131_072  # of these; a single message may have more
    max_queued_bytes: int = 4_194_304  # of these, of all links of a connection: more than one device has
    max_sections: int = 64  # of a message
    max_batch_messages: int = 2048  # of a delivery with the batch format

    max_sasl_challenges: int = 8  # of a connection

    # Bytes and texts
    max_sasl_frame_bytes: int = 2048  # a token or a TPM's key does not fit in the 512 bytes of the standard
    max_attach_bytes: int = 8192  # an ATTACH, whose decoded properties need a multiple of its size
    max_incomplete_bytes: int = 8_388_608  # transfers of incomplete deliveries, of all links: more than one device has
    session_bytes: int = 1024  # that a session counts for as received bytes; see `buffered`
    max_held_bytes: int = 262_144  # frames that wait for a decision on SASL, OPEN or ATTACH; see `wants_data`
    max_name_chars: int = 512  # of a link
    max_address_chars: int = 1024
    max_filter_chars: int = 512

    # Control frames: all but TRANSFER. Each delivery in either direction allows two more.
    max_control_frames: int = 4096
    control_frames_per_s: float = 200.0

    # Times
    open_timeout_s: float = 30.0  # from the first byte to OPEN
    close_timeout_s: float = 5.0  # from our CLOSE to the peer's
    min_heartbeat_s: float = 0.5  # shortest interval of our empty frames, whatever idle timeout the peer announces
