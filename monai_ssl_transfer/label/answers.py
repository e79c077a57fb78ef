"""What goes wrong as an HTTP answer: a 4xx with one sentence where the client can mend it."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING

from monai_ssl_transfer.errors import LabelError, UserError, user_error_of

if TYPE_CHECKING:
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse

logger = logging.getLogger(__name__)

_STOCK_STATUS = {"INVALID_INPUT": 404, "APP_INIT_ERROR": 404, "APP_ERROR": 404, "INFERENCE_ERROR": 422,
                 "TRANSFORM_ERROR": 422}  # fmt: skip
_CLIENTS_FAULT = ("Neither Image", "DICOM SEG format is not supported", "Model File Name NOT")
"""How the texts begin of errors that stock endpoints call the server's (500) and that are the client's."""


def install_answers() -> None:
    """Let the running server answer errors with a sentence; without a server in this process nothing happens.

    MONAI Label makes its FastAPI app at import and offers no hook for handlers. Starlette has built the chain that
    calls handlers when the app is started, so the chain is dropped and built anew at the next request.
    """
    module = sys.modules.get("monailabel.app")
    if module is None:
        return
    from monailabel.interfaces.exception import MONAILabelException
    from starlette.exceptions import HTTPException

    app: FastAPI = module.app
    app.add_exception_handler(UserError, _user_error)
    app.add_exception_handler(MONAILabelException, _stock_error)
    app.add_exception_handler(json.JSONDecodeError, _no_json)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(OSError, _no_file)
    app.add_exception_handler(Exception, _unexpected)
    app.middleware_stack = None


def _answer(status: int, sentence: str) -> JSONResponse:
    from fastapi.responses import JSONResponse

    return JSONResponse({"detail": sentence}, status_code=status)


def _user_error(request: Request, error: Exception) -> JSONResponse:
    status = error.status if isinstance(error, LabelError) else 422
    logger.warning("%s %s: %s", request.method, request.url.path, error)
    return _answer(status, str(error))


def _stock_error(request: Request, error: Exception) -> JSONResponse:
    known = user_error_of(error)
    if known is not None:
        return _user_error(request, known)
    status = _STOCK_STATUS.get(getattr(getattr(error, "error", None), "name", ""), 500)
    return _answer(status, str(getattr(error, "msg", error)))


def _no_json(request: Request, error: Exception) -> JSONResponse:
    return _answer(400, f"a field of the request is no JSON ({error}): send an object such as {{}}.")


def _http_error(request: Request, error: Exception) -> JSONResponse:
    status, detail = getattr(error, "status_code", 500), str(getattr(error, "detail", error))
    mended = 400 if status == 500 and detail.startswith(_CLIENTS_FAULT) else status
    answer = _answer(mended, detail)
    answer.headers.update(getattr(error, "headers", None) or {})
    return answer


def _no_file(request: Request, error: Exception) -> JSONResponse:
    """The disk: full, read-only or without a file that was there."""
    logger.error("%s %s", request.method, request.url.path, exc_info=error)
    return _answer(
        507, f"a file could not be read or written on the server ({getattr(error, 'strerror', '') or error})."
    )


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    known = user_error_of(error)
    if known is not None:
        return _user_error(request, known)
    said = (str(error).splitlines() or [""])[0][:200]
    return _answer(500, f"the server met an error that it does not know ({type(error).__name__}: {said}); see its log.")
