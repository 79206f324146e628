"""What can keep a stack from starting: a message for a person and an exit code for a script."""


class StackFault(Exception):
    """A reason to stop that its user can act upon; `exit_code` tells scripts which one."""

    exit_code = 1


class NotHealthy(StackFault):
    """A process of the stack did not become healthy, or died again and again."""


class AlreadyRunning(StackFault):
    """Another supervisor holds this home directory."""

    exit_code = 3


class NotRunning(StackFault):
    """The command needs a running stack, and there is none."""

    exit_code = 3


class PortTaken(StackFault):
    """A port with a fixed number belongs to another process."""

    exit_code = 4


class ProgramMissing(StackFault):
    """A server's binary is not there, or cannot be run by the user that must run it."""

    exit_code = 5


class DataTooNew(StackFault):
    """The data directory or the schema comes from a newer version of this software."""

    exit_code = 6


class BadConfiguration(StackFault):
    """The settings contradict themselves or the machine."""

    exit_code = 7
