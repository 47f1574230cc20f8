"""Make a small static model of a sentence-transformers model."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from batch_nlp.embedders import (
    DIGESTS_FILE,
    MINILM_DISTRIBUTION,
    MINILM_SHA256,
    SHIPPED_MODEL,
    check_positive,
    file_digests,
    require_extra,
    sentence_folder,
)
from batch_nlp.errors import InputError
from batch_nlp.tables import atomic_folder

ENGLISH = r"\[unused\d+\]|(##)?[^\x00-\u024f\u2000-\u2bff]+$"
"""Tokens that a model for English can do without: placeholders, and those in other scripts."""

_MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """Distil a static model that `batch_nlp.embedders.StaticEmbedder` can read.

    model2vec passes each token of the source's vocabulary through it alone, reduces the vectors
    by a principal component analysis and weights them by how rare the token should be (SIF,
    with the token's rank standing for its frequency). Needs the extra `transformers`; on two
    cores it takes half a minute for all-MiniLM-L6-v2.

    Parameters
    ----------
    output : str
        Folder to make. It must not be there yet, or be empty.
    source : str, optional
        Name or folder of a sentence-transformers model; by default the packaged
        all-MiniLM-L6-v2.
    dims : int, default=256
        Length of a vector, at most the source's own.
    dtype : {"int8", "float16", "float32"}, default="int8"
        Type of the stored numbers.
    sif_coefficient : float or None, default=0.01
        The smaller, the less a frequent token counts; None weights all tokens alike.
    remove_tokens : str, optional
        Regular expression; tokens whose beginning matches it are left out of the vocabulary.
        By default placeholders and tokens in other than Latin script; set it to null for a
        source that knows other scripts.
    device : str, optional
        Such as ``cpu`` or ``cuda``; by default the fastest there is.
    measured : str, optional
        What is known of the model's quality, in Markdown, for its card.

    Examples
    --------
    >>> Distillation(output="models/static/mine", dims=128).dtype
    'int8'
    """

    output: str
    source: str | None = None
    dims: int = 256
    dtype: str = "int8"
    sif_coefficient: float | None = 0.01
    remove_tokens: str | None = ENGLISH
    device: str | None = None
    measured: str | None = None

    def run(self) -> Path:
        """Distil the model and write it with its card and its digests.

        The folder appears under its name only when it is complete.

        Returns
        -------
        Path
            The folder `output`.

        Raises
        ------
        InputError
            If a parameter makes no sense, the output is taken, the extra is not installed, or
            the source cannot be loaded.
        ArtifactError
            If the weights of the packaged source are missing or damaged.
        """
        self._check()
        require_extra("torch", "transformers", "skeletoken", needed_by="Distillation")
        output = Path(self.output)
        with atomic_folder(output) as beside:
            self._write(beside)
        return output

    def _check(self) -> None:
        output = Path(self.output)
        if output.exists() and not (output.is_dir() and not any(output.iterdir())):
            raise InputError(
                f"Distillation: output must be a new or an empty folder; '{output}' is taken."
            )
        check_positive(self, "dims")
        if self.dtype not in {"int8", "float16", "float32"}:
            raise InputError(
                "Distillation: dtype must be one of 'int8', 'float16', 'float32'; "
                f"got '{self.dtype}'."
            )
        if self.sif_coefficient is not None and not 0 < self.sif_coefficient < 1:
            raise InputError(
                "Distillation: sif_coefficient must lie between 0 and 1, or be null; "
                f"got {self.sif_coefficient}."
            )
        try:
            re.compile(self.remove_tokens or "")
        except re.error as e:
            raise InputError(
                f"Distillation: remove_tokens must be a regular expression; {e}, "
                f"got '{self.remove_tokens}'."
            ) from e

    def _write(self, folder: Path) -> None:
        source = sentence_folder(self.source)
        from model2vec.distill import distill  # noqa: PLC0415  seconds of start-up

        try:
            model = distill(
                str(source),
                device=self.device,
                pca_dims=self.dims,
                sif_coefficient=self.sif_coefficient,
                token_remove_pattern=self.remove_tokens,
                quantize_to=self.dtype,
            )
        except (OSError, ValueError) as e:
            raise InputError(
                f"Distillation: '{self.source or MINILM_DISTRIBUTION}' cannot be distilled: {e}"
            ) from e
        # model2vec would write where the source lay on this machine.
        model.config["tokenizer_name"] = self._source_name
        model.save_pretrained(folder)
        # The weights are written for their owner's eyes only; the other files follow the umask.
        shutil.copymode(folder / "config.json", folder / "model.safetensors")
        digests = file_digests(folder)
        (folder / DIGESTS_FILE).write_text(json.dumps(digests, indent=2) + "\n", encoding="utf-8")
        if self.source is None:
            shutil.copyfile(SHIPPED_MODEL / "LICENSE", folder / "LICENSE")
            (folder / "NOTICE").write_text(_NOTICE, encoding="utf-8")
        card = self._card(n_dims=model.dim, n_tokens=len(model.tokens), folder=folder)
        (folder / "README.md").write_text(card, encoding="utf-8")

    @property
    def _source_name(self) -> str:
        if self.source is None:
            return _MINILM
        return Path(self.source).resolve().name if Path(self.source).is_dir() else self.source

    def _card(self, *, n_dims: int, n_tokens: int, folder: Path) -> str:
        weights = folder / "model.safetensors"
        arguments = {
            name: value
            for name, value in asdict(self).items()
            if name in {"dims", "dtype", "sif_coefficient", "remove_tokens"}
        }
        call = "".join(f"\n    {name}={value!r}," for name, value in arguments.items())
        source = "" if self.source is None else f"\n    source={self._source_name!r},"
        if self.source is None:
            licence, origin = "apache-2.0\nlanguage: en", _MINILM_ORIGIN
        else:
            licence, origin = "other", _OTHER_ORIGIN.format(source=self._source_name)
        return _CARD.format(
            licence=licence,
            source=self._source_name,
            origin=origin,
            model2vec=version("model2vec"),
            call=f'Distillation(\n    output="my_model",{source}{call}\n).run()',
            n_dims=n_dims,
            n_tokens=n_tokens,
            dtype=self.dtype,
            megabytes=weights.stat().st_size / 1e6,
            measured=self.measured or "Not measured.",
        )


_MINILM_ORIGIN = f"""\
It was distilled from all-MiniLM-L6-v2 of the Sentence Transformers team, whose card states the
Apache License 2.0; this model is under the same licence (LICENSE, NOTICE). The weights came from
the distribution {MINILM_DISTRIBUTION} 0.1.0, whose own code is under the MIT licence and is not
part of this folder; its file model.safetensors has the SHA-256
`{MINILM_SHA256}`."""

_OTHER_ORIGIN = """\
It was distilled from {source}. It is a work derived from that model: see there under which
licence it may be used and passed on."""

_NOTICE = """\
This model is derived from all-MiniLM-L6-v2 by the Sentence Transformers team, which is licensed
under the Apache License, Version 2.0 (see the file LICENSE).

Changes: the transformer was replaced by one vector for each token of a reduced vocabulary,
worked out by passing each token through the transformer alone, reduced in dimension by a principal
component analysis, weighted and rounded. The tokenizer was reduced to that vocabulary.
"""

_CARD = """\
---
license: {licence}
base_model: {source}
library_name: model2vec
---

# A static model distilled from {source}

It turns a text into a vector by adding up one stored vector for each token and scaling the sum to
length 1. Word order plays no part.

## Origin and licence

{origin}

## How it was made

By model2vec {model2vec}, with the extra `transformers` installed:

```python
from batch_nlp.distill import Distillation

{call}
```

## Size

{n_dims} dimensions, {n_tokens:,} tokens, stored as {dtype}: {megabytes:.2f} MB.
`digests.json` holds the SHA-256 of each file that decides the vectors; they are checked before
the model is used.

## Measured

{measured}

## Limits

- A token has one vector wherever it stands: "not good" is close to "good".
- Its languages are those of the source (English for all-MiniLM-L6-v2). Tokens that were removed
  or never known are left out; a text without any known token has the zero vector.
- `StaticEmbedder` reads the first 512 tokens of a text unless told otherwise, and counts the
  texts that it cuts. model2vec's own `encode` cuts sooner: it first cuts a text after 512 times
  the median token's number of characters.
"""
