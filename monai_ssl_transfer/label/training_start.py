"""What the running server checks before it starts a process for a training.

MONAI Label answers POST /train at once and starts a process, which takes ten seconds to find out that nothing is
labelled; and a second training that is asked for before that process is registered waits in a queue unseen. Its
endpoint offers no hook: an app hears of a training only inside the process. Therefore the one function that the
endpoint calls is wrapped here; trainings of other classes than `BundleTraining` pass unchanged.
"""

from __future__ import annotations

import sys
from functools import wraps
from typing import Any

from monai_ssl_transfer.label.training_progress import busy

_WAITING = ("SUBMITTED", "RUNNING")


def install_training_checks() -> None:
    """Check trainings before they start; without a server in this process nothing happens."""
    module: Any = sys.modules.get("monailabel.endpoints.train")
    if module is None or hasattr(module.run_model, "__wrapped__"):
        return
    started = module.run_model

    @wraps(started)
    def checked(model: str, params: dict[str, Any] | None = None, run_sync: bool = False, enqueue: bool = False) -> Any:
        refuse_training(model, params or {}, enqueue)
        return started(model, params, run_sync, enqueue)

    module.run_model = checked


def refuse_training(model: str, params: dict[str, Any], enqueue: bool) -> None:
    """Refuse a training that would fail, or that another one is in the way of.

    Args:
        model: name of the bundle.
        params: of the request.
        enqueue: the client wants it to wait for another one.

    Raises:
        UserError: with the sentence for the client.
    """
    from monailabel.interfaces.utils.app import app_instance
    from monailabel.utils.async_tasks.utils import tasks

    from monai_ssl_transfer.label.training import BundleTraining

    app = app_instance()
    task = app._trainers.get(model)
    if not isinstance(task, BundleTraining):
        return
    waiting = [one for one in tasks("train") if one["status"] in _WAITING]
    if waiting and not enqueue:
        raise busy(waiting[0]["request"].get("model", "a model"))
    task.check(params, app.datastore(), running=enqueue)
