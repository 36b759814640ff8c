"""Times and spans: aware UTC datetimes and the protobuf types."""

from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def set_timestamp(target: Timestamp, moment: datetime) -> None:
    """Write `moment` into a message's own field; by integers, so that no microsecond is lost."""
    since = moment - _EPOCH
    target.seconds = since.days * 86_400 + since.seconds
    target.nanos = since.microseconds * 1_000


def to_timestamp(moment: datetime) -> Timestamp:
    """Return `moment` as a message."""
    target = Timestamp()
    set_timestamp(target, moment)
    return target


def optional_timestamp(moment: datetime | None) -> Timestamp | None:
    """Return `moment` as a message; None stays None, which leaves a field absent."""
    return None if moment is None else to_timestamp(moment)


def to_datetime(source: Timestamp) -> datetime:
    """Return an aware UTC datetime, cut to microseconds. Raises ValueError or OverflowError out of its range."""
    if not 0 <= source.nanos < 1_000_000_000:
        raise ValueError("nanos out of range")
    return _EPOCH + timedelta(seconds=source.seconds, microseconds=source.nanos // 1_000)
