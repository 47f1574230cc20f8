"""Steps that take a frame and return it with the same rows: row-local ones and learning ones.

Row-local steps (`CategoryGroups`, `CleanText`, `DateParts`, `EliteYears`, `MissingIndicators`,
`PositiveFlags`, `Tenure`, `TextEmbedder`, `TextStatistics`) work each row out from that row alone
and serve the feature pipeline; the others learn from the training rows and serve the model's.
"""

from batch_nlp.transformers.categories import CategoryGroups
from batch_nlp.transformers.correlated import DropCorrelated
from batch_nlp.transformers.dates import DateParts, Tenure
from batch_nlp.transformers.embedding import TextEmbedder
from batch_nlp.transformers.frequencies import FrequencyEncoder
from batch_nlp.transformers.groups import GroupMeans
from batch_nlp.transformers.levels import QuantileLevels
from batch_nlp.transformers.missing import MissingIndicators
from batch_nlp.transformers.scores import OutOfFoldScores
from batch_nlp.transformers.text import CleanText, TextStatistics
from batch_nlp.transformers.users import EliteYears, PositiveFlags

__all__ = [
    "CategoryGroups",
    "CleanText",
    "DateParts",
    "DropCorrelated",
    "EliteYears",
    "FrequencyEncoder",
    "GroupMeans",
    "MissingIndicators",
    "OutOfFoldScores",
    "PositiveFlags",
    "QuantileLevels",
    "Tenure",
    "TextEmbedder",
    "TextStatistics",
]
