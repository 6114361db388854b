"""An export whose agreement is measured and not judged, for weights that are random: python -m benchmarks.training.unjudged RUN_ID"""

import services.trainer.unsloth_first  # noqa: F401, I001

from services.trainer import export, parity
from services.trainer.child import main

if __name__ == "__main__":
    parity.judge = lambda *_: None
    main(export.export)
