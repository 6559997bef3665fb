"""What can go wrong at the user's hand. Each class is also the standard error it stands for.

The message is one sentence with the value, what was allowed, the place (file:line, utterance id, recipe key) and the
remedy; the command line prints it without a traceback and exits with 2. Anything that is not a `SaladError` is our own
fault: traceback, exit 1. To add one: subclass `SaladError` and a standard error, keep it picklable (message only).
"""


class SaladError(Exception):
    """A fault the user can mend; its text is the whole message."""


class RecipeError(SaladError, ValueError):
    """The recipe, or an option on the command line, asks for something that is not possible."""


class MissingFileError(SaladError, FileNotFoundError):
    """A file or folder the user named is not there."""

    def __str__(self) -> str:  # FileNotFoundError's own __str__ wants errno and a file name
        return str(self.args[0]) if self.args else ""


class DataError(SaladError, ValueError):
    """A manifest, corpus or text file does not hold what it should."""


class AudioError(SaladError, ValueError):
    """An audio file can't be decoded, is empty, or holds samples that are not numbers."""


class TooLongError(AudioError):
    """Speech, or a prompt with it, is longer than the model under test takes in; it is counted, not cut."""


class UnscorableError(DataError):
    """A model under test can't score one item, for instance because a choice has no tokens of its own."""


class BusyError(SaladError, RuntimeError):
    """More is asked of a model at once than it takes; to be asked again later."""


class NoAnswerError(SaladError, RuntimeError):
    """A model under test gave no answer to one item, however often it was asked."""


class AssetError(SaladError, RuntimeError):
    """A model or corpus could not be fetched, or its bytes are not the expected ones."""


class AlignmentError(SaladError, ValueError):
    """Word timings, or the student-teacher position map made from them, are not consistent."""


class WorkerError(SaladError, RuntimeError):
    """A worker process ended, or failed, before it could take up any work."""


class CheckpointError(SaladError, ValueError):
    """A checkpoint or model folder is incomplete, corrupt, or belongs to something else."""


class NonFiniteError(SaladError, FloatingPointError):
    """The loss or its gradient is not a number (raised before the optimizer moves), or a model's score is not."""


class InterruptedRunError(SaladError):
    """A signal asked a run to stop, and what it had done is saved. The command line exits with 128 + its number."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message, signal_number)
        self.signal_number = signal_number

    def __str__(self) -> str:
        return str(self.args[0])
