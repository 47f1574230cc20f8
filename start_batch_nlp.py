"""Run a pipeline: ``python start_batch_nlp.py pipeline=inference``; ``--help`` says the rest."""

import atexit
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent

# Before any import: threads that spin while they wait slow a busy machine down, and Hydra
# then raises its errors instead of printing them over many lines.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Arrow's own allocator keeps more of what is free: with the system's a run takes a tenth less.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
os.environ.setdefault("BATCH_NLP_ROOT", str(HERE))
os.environ.setdefault("HYDRA_FULL_ERROR", "1")

ended: list[int] = []


def leave() -> None:
    """End at once: to take apart what the libraries hold takes up to half a second."""
    if ended:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        os._exit(ended[0])


if __name__ == "__main__":  # worker processes read this file too, and need no command line
    # Before the libraries are there, so that it is done after what they do at the end.
    atexit.register(leave)
    from batch_nlp.cli import main

    ended.append(main(HERE / "conf"))
    sys.exit(ended[0])
