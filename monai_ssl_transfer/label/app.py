"""The app that MONAI Label runs: our bundles, strictly loaded, over a safe folder of images."""

from __future__ import annotations

import atexit
import logging
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random
from monailabel.utils.async_tasks.utils import processes
from monailabel.utils.sessions import Sessions

from monai_ssl_transfer import __version__
from monai_ssl_transfer.errors import LabelError
from monai_ssl_transfer.label.answers import install_answers
from monai_ssl_transfer.label.datastore import SafeDatastore
from monai_ssl_transfer.label.inference import StrictBundleInference, reason_of
from monai_ssl_transfer.label.stopping import end_tasks_when_stopped
from monai_ssl_transfer.label.training_start import install_training_checks
from monai_ssl_transfer.label.workspace import read_settings, served_bundles

logger = logging.getLogger(__name__)

_FIXED = {"zoo_source": "local", "sam2": "false"}
"""What the stock monaibundle app would otherwise fetch from the network."""
_BY_SCORES = "ssl_uncertain"
_SESSION = re.compile(r"[0-9a-f-]{36}")


class SSLTransferApp(MONAILabelApp):
    """MONAI Label's monaibundle app with strict loading, safe files, training that keeps the better model, and SSL.

    It is built on `MONAILabelApp`, not on the stock app itself: that is a script among the data files of the wheel,
    at a place that depends on the installer, and all of its four methods are replaced here.

    Args:
        app_dir: the app folder (`workspace.prepare_app`).
        studies: folder of images, or address of a DICOMweb server.
        conf: ``--conf`` of the command line.
    """

    _auto_update_scoring: bool

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self.folder = Path(app_dir)
        remembered = read_settings(self.folder)
        self.encoder = Path(remembered.encoder) if remembered.encoder else None
        self.bundles = served_bundles(self.folder)
        self.uploads = tempfile.mkdtemp(prefix="label-")
        tempfile.tempdir = self.uploads  # where endpoints put what clients send; nobody else can name a file there
        atexit.register(shutil.rmtree, self.uploads, ignore_errors=True)
        install_answers()
        install_training_checks()
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf={**remembered.conf, **(conf or {}), **_FIXED},
            name=f"monai-ssl-transfer {__version__}",
            description="Bundles with self-supervised pretraining",
            version=__version__,
        )

    # ---- what is served

    def init_datastore(self) -> Datastore:
        """A safe folder; addresses as in the stock app."""
        if re.match("https?://", self.studies):
            return super().init_datastore()
        return SafeDatastore(self.studies, auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD)

    def _init_dicomweb_datastore(self) -> Datastore:
        """Without the program for DICOM SEG that the stock app downloads."""
        from monai_ssl_transfer.label.dicomweb import dicomweb_datastore

        return dicomweb_datastore(self.studies)

    def init_infers(self) -> dict[str, InferTask]:
        """One task per bundle, with weights or without."""
        return {name: StrictBundleInference(str(path), self.conf) for name, path in self.bundles.items()}

    def init_trainers(self) -> dict[str, TrainTask]:
        """One training per bundle."""
        from monai_ssl_transfer.label.training import BundleTraining

        tasks = {name: BundleTraining(str(path), self.conf, self.encoder) for name, path in self.bundles.items()}
        return {name: task for name, task in tasks.items() if task.is_valid()}

    def init_strategies(self) -> dict[str, Strategy]:
        """Random and first, and what self-supervised embeddings suggest."""
        from monai_ssl_transfer.label.embeddings import DatastoreEmbeddings
        from monai_ssl_transfer.label.scoring import can_be_scored, score_key
        from monai_ssl_transfer.label.strategies import make_strategies

        self.embeddings = DatastoreEmbeddings(self._datastore, self.encoder, self.folder / "embeddings")
        scored = sorted(filter(can_be_scored, self._infers.values()), key=lambda task: not task.is_valid())
        usual = score_key(scored[0].bundle_name) if scored else ""
        return {"random": Random(), "first": First(), **make_strategies(self.embeddings, usual)}

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """Uncertainty of every bundle whose answers have it."""
        from monai_ssl_transfer.label.scoring import make_scoring

        return make_scoring(self._infers)

    def _load_sessions(self, load: bool = False) -> Sessions | None:
        place = settings.MONAI_LABEL_SESSION_PATH or str(self.folder / "sessions")
        return CheckedSessions(place, settings.MONAI_LABEL_SESSION_EXPIRY) if load else None

    def on_init_complete(self) -> None:
        """The server is up: begin what works in the background."""
        end_tasks_when_stopped()
        with self._without_scoring():
            super().on_init_complete()
        self.embeddings.start()

    def info(self) -> dict[str, Any]:
        """What is served, and of which bundles there are no weights yet."""
        missing = {name: task.without_weights for name, task in self._infers.items()}
        return {
            **super().info(),
            "without_weights": {name: said for name, said in missing.items() if said},
            "embeddings": self.embeddings.status(),
        }

    # ---- inference

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Answer an inference request.

        Args:
            request: ``model``; ``image``, an id of the datastore (or what an endpoint stored of an upload);
                ``save_label`` and ``label_tag``.
            datastore: None takes the app's.

        Returns:
            ``label`` (id or file), ``tag``, ``file`` and ``params``.

        Raises:
            LabelError: unknown model or image, no weights, or an image that the bundle cannot read.
        """
        datastore = datastore or self.datastore()
        model, image_id = self._model(request.get("model")), request.get("image")
        if request.get("skip_writer"):
            raise LabelError("skip_writer is no setting of a request: leave it out.")
        task = self._infers[model]
        if task.without_weights:
            raise LabelError(task.without_weights, 409)
        path = self._image_path(image_id, datastore)
        uploaded = path == image_id
        asked = {**request, "image": path, "save_label": False}
        if not uploaded and isinstance(image_id, str):
            asked["shown_image"] = image_id
        result: dict[str, Any] = super().infer(asked, datastore)
        tag = request.get("label_tag") or DefaultLabelTag.ORIGINAL
        if result["file"] and request.get("save_label") and not uploaded:
            info = {"model": model, "params": result["params"]}
            result["label"] = datastore.save_label(image_id, result["file"], tag, info)
        return result

    def batch_infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Answer for many images; one that cannot be read is named, and the others are done.

        Raises:
            LabelError: none could be done.
        """
        if not torch.cuda.is_available():
            request = {**request, "multi_gpu": False}  # stock divides the images among the GPUs, also among none
        failed: dict[str, str] = {}

        def infer(one: dict[str, Any], store: Datastore) -> dict[str, Any]:
            try:
                return self.infer(one, store)
            except Exception as error:  # noqa: BLE001 - whatever one image leads to must not stop the others
                failed[str(one.get("image"))] = reason_of(error)
                logger.warning("%s: %s", one.get("image"), reason_of(error))
                return {"error": reason_of(error)}

        self._model(request.get("model"))
        results: dict[str, Any] = self._batch_infer(request, datastore or self.datastore(), infer)
        said = "".join(f"; {name}: {reason}" for name, reason in failed.items())
        logger.info("%d of %d images done%s", len(results) - len(failed), len(results), said)
        if results and len(failed) == len(results):
            raise LabelError(f"none of {len(results)} images could be done{said}")
        return results

    def _model(self, name: Any) -> str:
        if name not in self._infers:
            raise LabelError(f"there is no model {name!r}: choose one of {', '.join(self._infers)}.", 404)
        return str(name)

    def _image_path(self, image: Any, datastore: Datastore) -> Any:
        """The file of an image: by its id, or a file that an endpoint of this server has just stored."""
        if not isinstance(image, str):
            return image
        place = Path(image)
        if place.is_absolute():
            stores = [Path(self.uploads), *([Path(self._sessions.store_path)] if self._sessions else [])]
            if any(place.resolve().is_relative_to(one.resolve()) for one in stores) and place.exists():
                return image
        uri = datastore.get_image_uri(image) if image and "\0" not in image else ""
        if not uri or not Path(uri).exists():
            raise LabelError(
                f"there is no image {image!r} in the datastore: GET /datastore/?output=all lists them.", 404
            )
        return uri

    # ---- what else clients ask for

    def bundle_path(self, model: str | None) -> str | None:
        """Folder of a bundle; asked before any task goes into the background, so that a wrong name is answered at once.

        Raises:
            LabelError: no such model.
        """
        if model is None:
            return None
        return str(self.bundles[self._model(model)])

    def infer_wsi(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Whole slides are read by no bundle here, and the stock method takes any path.

        Raises:
            LabelError: always.
        """
        raise LabelError("whole-slide images are not served: use /infer/.", 404)

    def model_file(self, model: str, validate: bool = True) -> str | None:
        """File of the weights.

        Raises:
            LabelError: a client wants to replace it, which the stock endpoint would do without looking.
        """
        if not validate:
            raise LabelError("weights are not taken from clients: train here, or start with another bundle.", 403)
        found: str | None = super().model_file(self._model(model), validate)
        return found

    def next_sample(self, request: dict[str, Any]) -> dict[str, Any]:
        """The image to label next.

        Raises:
            LabelError: no such strategy.
        """
        if request.get("strategy") not in self._strategies:
            known = ", ".join(self._strategies)
            raise LabelError(f"there is no strategy {request.get('strategy')!r}: choose one of {known}.", 404)
        if request["strategy"] == _BY_SCORES and self._auto_update_scoring:
            self.async_scoring(None)
        with self._without_scoring():
            chosen: dict[str, Any] = super().next_sample(request)
        return chosen

    @contextmanager
    def _without_scoring(self) -> Iterator[None]:
        """Stock scores at the start and at every next image, each time in a new process, whoever wants it or not."""
        usual, self._auto_update_scoring = self._auto_update_scoring, False
        try:
            yield
        finally:
            self._auto_update_scoring = usual

    def async_scoring(self, method: str | None, params: Any = None) -> Any:
        """Score in the background, where a score is missing or older than its model; each start costs ten seconds."""
        if method:
            return super().async_scoring(method, params)
        if processes("scoring"):
            return {}
        stale = [name for name, one in self._scoring_methods.items() if one.stale(self.datastore())]
        return {name: super(SSLTransferApp, self).async_scoring(name, params) for name in stale}


class CheckedSessions(Sessions):
    """Sessions whose ids and archives cannot name another folder."""

    def add_session(self, data_file: str, expiry: int = 0, uncompress: bool = False, session_id: Any = None) -> Any:
        """Keep an upload.

        Raises:
            LabelError: an archive whose entries Python would unpack anywhere.
        """
        if uncompress and not zipfile.is_zipfile(data_file):
            raise LabelError(f"{Path(data_file).name} is no zip: send a zip, or the files themselves.", 415)
        return super().add_session(data_file, expiry, uncompress, session_id)

    def get_session(self, session_id: str, update_ts: bool = True, fetch_cache: bool = True) -> Any:
        """Look a session up; whatever is no id is unknown."""
        return super().get_session(session_id, update_ts, fetch_cache) if _SESSION.fullmatch(session_id) else None
