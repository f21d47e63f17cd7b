"""How the command exits."""

from darkroom.errors import DarkroomError, ItemFailed, ReadOnlyKey, Unauthorized, Unreachable

IMAGES_FAILED, USAGE, REFUSED, KEY, UNREACHABLE, INTERRUPTED = 1, 2, 3, 4, 5, 130
_BY_ERROR = (
    ((Unauthorized, ReadOnlyKey), KEY),
    (Unreachable, UNREACHABLE),
    (ItemFailed, IMAGES_FAILED),
    (DarkroomError, REFUSED),
    (OSError, USAGE),
)


def exit_code(error: DarkroomError | OSError) -> int:
    return next(code for kinds, code in _BY_ERROR if isinstance(error, kinds))
