"""Log in with a token, log out. The browser gets a session, never the token."""

from datetime import timedelta
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from console import limits
from console.auth import COOKIE, address_of, check_origin
from console.pages.base import FORM_BYTES_MAX, render
from console.problems import Problem, of_error
from console.services import Services
from sinks.ledger import tokens

_PER_S: Final = 0.5
"""Failed logins per address; guessing a 256-bit secret is hopeless anyway, this keeps the ledger quiet."""


def session_routes(services: Services) -> list[Route]:
    """Return `/login` and `/logout`."""
    tries = services.make_limiter("logins", _PER_S)

    async def show(request: Request) -> Response:
        return _page(request, "")

    async def log_in(request: Request) -> Response:
        address = address_of(request)
        try:
            check_origin(request)
            if (wait_s := tries.wait_s(address)) > 0:
                raise limits.too_many("too many failed logins came from this address", wait_s)
            text = await _token_text(request)
            token = await services.authenticator.token_named(text, address)
        except Exception as error:
            problem = of_error(error)
            return _page(request, problem.detail, problem.status)
        if token is None:
            tries.take(address)
            return _page(request, "This token is unknown, expired or revoked.", 401)
        if token.role == "producer":
            return _page(request, "A producer's token sends events; it cannot look at the console.", 403)
        lasts = timedelta(hours=services.settings.console.session_hours)
        secret = await services.pool.ask_ledger(
            lambda engine: tokens.open_session(engine, token, services.clock.now(), lasts)
        )
        response = RedirectResponse(_next(request), status_code=303)
        response.set_cookie(
            COOKIE,
            secret,
            max_age=int(lasts.total_seconds()),
            httponly=True,
            samesite="lax",
            secure=services.settings.console.behind_tls,
        )
        return response

    async def log_out(request: Request) -> Response:
        check_origin(request)
        secret = request.cookies.get(COOKIE)
        if secret:
            await services.pool.ask_ledger(lambda engine: tokens.close_session(engine, secret))
            services.authenticator.forget()
        response = RedirectResponse("/login", status_code=303)
        response.delete_cookie(COOKIE, httponly=True, samesite="lax", secure=services.settings.console.behind_tls)
        return response

    return [
        Route("/login", show, methods=["GET"]),
        Route("/login", log_in, methods=["POST"], name="log_in"),
        Route("/logout", log_out, methods=["POST"]),
    ]


async def _token_text(request: Request) -> str:
    length = request.headers.get("content-length", "")
    if not length.isdigit() or int(length) > FORM_BYTES_MAX:
        raise Problem("body_too_large", "the form is too large")
    form = await request.form(max_files=0, max_fields=10)
    return str(form.get("token", "")).strip()


def _next(request: Request) -> str:
    """Return where to go after the login: a path of this console, nothing else."""
    target = request.query_params.get("next", "/")
    is_path = target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable()
    return target if is_path else "/"


def _page(request: Request, message: str, status: int = 200) -> Response:
    action = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return render("login.html", None, {"message": message, "action": action}, None, status)
