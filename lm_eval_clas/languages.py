"""Languages of tasks and requests: the names that other modules, and programs that use the package, import."""

from lm_eval_clas.detection import Detector
from lm_eval_clas.language_codes import UNDETERMINED, LanguageCode, english_name, normalize
from lm_eval_clas.language_names import parse_language
from lm_eval_clas.macrolanguages import as_known
from lm_eval_clas.routing import LanguageRouter, Recognized, from_doc
from lm_eval_clas.task_names import from_task_name, read_task_name, without_language

__all__ = [
    "UNDETERMINED",
    "Detector",
    "LanguageCode",
    "LanguageRouter",
    "Recognized",
    "as_known",
    "english_name",
    "from_doc",
    "from_task_name",
    "normalize",
    "parse_language",
    "read_task_name",
    "without_language",
]
