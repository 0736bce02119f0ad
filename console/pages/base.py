"""How a page is declared and shown: a session, a permission, a template, and a designed answer for what goes wrong.

A page is a function from its `Visit` to the values of its template; forms post to the same path, and `act` answers
with the same values or a redirect. Templates escape everything, and the content security policy allows no inline
script or style: put both into `console/static`.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from console import limits
from console.auth import PERMISSIONS, Permission, check_origin, check_permission
from console.formats import FILTERS
from console.middleware import of_routing, routing_problem
from console.problems import Problem, of_error
from console.scope import check_unscoped
from console.services import Services
from core.logging import get_logger
from sinks.ledger.tokens import Token

TEMPLATES: Final = Path(__file__).parents[1] / "templates"
FORM_BYTES_MAX: Final = 64 << 10
FORM_FIELDS_MAX: Final = 200

_NO_PAGES: Final = ("/api/", "/health/", "/static/")

log = get_logger("console")
_environment: Final = Environment(
    loader=FileSystemLoader(TEMPLATES),
    autoescape=select_autoescape(default=True, default_for_string=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters.update(FILTERS)


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of a page by somebody who may see it."""

    request: Request
    services: Services
    token: Token

    @property
    def permissions(self) -> frozenset[Permission]:
        """Return what the visitor may do: hide what is not among it."""
        return PERMISSIONS[self.token.role]

    async def form(self) -> FormData:
        """Return the fields of the form that was sent; they are checked for size and origin already."""
        return await self.request.form(max_files=0, max_fields=FORM_FIELDS_MAX, max_part_size=FORM_BYTES_MAX)


Values = Mapping[str, Any]
Show = Callable[[Visit], Awaitable[Values | Response]]
Act = Callable[[Visit], Awaitable[Values | Response]]


@dataclass(frozen=True, slots=True)
class Page:
    """One page. `title` stands in the navigation; pages without one are reached from others.

    `whole`: the page is about everything, so a token of single tenants does not see it.
    """

    path: str
    name: str
    title: str
    template: str
    show: Show
    permission: Permission = "read"
    act: Act | None = None
    whole: bool = False


def page_route(page: Page, services: Services) -> Route:
    """Return the route of a page. Without a session it leads to the login, and back after it."""

    async def answer(request: Request) -> Response:
        request.state.operation = "page"
        try:
            token = await services.authenticator.token_of_session(request)
        except Exception as error:
            return error_page(request, error, page)
        if token is None:
            return to_login(request)
        request.state.token = token
        visit = Visit(request, services, token)
        try:
            check_permission(token, page.permission)
            if page.whole:
                check_unscoped(token)
            limits.check(services.requests, token.id)
            if request.method == "POST":
                check_origin(request)
                return await _acted(page, visit)
            shown = await page.show(visit)
            return shown if isinstance(shown, Response) else render(page.template, visit, shown, page)
        except Exception as error:
            return error_page(request, error, page, visit)

    return Route(page.path, answer, methods=["GET", "POST"] if page.act else ["GET"], name=page.name)


async def _acted(page: Page, visit: Visit) -> Response:
    if page.act is None:
        raise Problem("method_not_allowed", "nothing can be sent to this page")
    length = visit.request.headers.get("content-length", "")
    if not length.isdigit() or int(length) > FORM_BYTES_MAX:
        raise Problem("body_too_large", f"a form has at most {FORM_BYTES_MAX:,} bytes")
    result = await page.act(visit)
    return result if isinstance(result, Response) else render(page.template, visit, result, page)


def to_login(request: Request) -> Response:
    """Send the browser to the login page, and back to this one after it."""
    target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    asked = f"/login?next={quote(target, safe='')}" if target != "/" else "/login"
    return RedirectResponse(asked, status_code=303)


def render(template: str, visit: Visit | None, values: Values, page: Page | None = None, status: int = 200) -> Response:
    """Return a page. Every template has `visit`, `page` and `pages` (the navigation) beside its own values."""
    from console.pages import PAGES  # noqa: PLC0415 - the pages import this module

    shown = [one for one in PAGES if visit is not None and one.title and _is_for(one, visit)]
    text = _environment.get_template(template).render(dict(values), visit=visit, page=page, pages=shown)
    return HTMLResponse(text, status)


def _is_for(page: Page, visit: Visit) -> bool:
    return page.permission in visit.permissions and not (page.whole and visit.token.tenants)


async def routing_error(request: Request, error: Exception) -> Response:
    """Return the answer for an address that there is not: a page for who looks, a problem for programs."""
    path = request.url.path
    if path.startswith(_NO_PAGES) or "text/html" not in request.headers.get("accept", ""):
        return await routing_problem(request, error)
    return error_page(request, of_routing(error))


def error_page(request: Request, error: Exception, page: Page | None = None, visit: Visit | None = None) -> Response:
    """Return the page that says what went wrong and what to do; without navigation if it is not known who looks."""
    problem = of_error(error)
    if problem.code == "internal_error":
        log.error("A page failed.", path=request.url.path, exc_info=error)
    values = {"problem": problem, "request_id": request.state.request_id}
    response = render("error.html", visit, values, page, problem.status)
    response.headers.update(problem.headers)
    return response
