"""The pages to sign in with an API key, and to sign out."""

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from app.pages.access import access_of, form_of, read_form
from app.pages.csrf import check_origin
from app.pages.page_route import PageRoute
from app.pages.rendering import render
from app.pages.session import end_session, own_path, start_session
from app.web.auth import SESSION_COOKIE
from app.web.paths import prefix
from app.web.state import get_services

router = APIRouter(route_class=PageRoute, include_in_schema=False)

WRONG_KEY = "This is not a valid API key. Ask the operator of this service for a key."
OLD_KEY = "The API key of this browser is no longer valid. Sign in with another one."


@router.get("/login")
def login_page(request: Request, next: str | None = None) -> Response:  # noqa: A002 - its name in the URL
    if not get_services(request).access.has_keys:  # there is nothing to sign in with
        return RedirectResponse(f"{prefix(request.scope)}{own_path(next)}", 303)
    is_old = SESSION_COOKIE in request.cookies and not access_of(request).signed_in
    response = _form(request, next, OLD_KEY if is_old else None)
    if is_old:
        end_session(request, response)
    return response


@router.post("/login")
async def login(request: Request) -> Response:
    check_origin(request)
    await read_form(request)
    form = form_of(request)
    secret = form.get("key", "").strip()
    key = get_services(request).access.find(secret)
    if key is None:
        request.state.problem = {"title": "Unauthenticated", "detail": WRONG_KEY}  # for the log
        response = await run_in_threadpool(_form, request, form.get("next"), WRONG_KEY, 401)
        response.headers["www-authenticate"] = "Bearer"
        return response
    request.state.caller = key.name
    response = RedirectResponse(f"{prefix(request.scope)}{own_path(form.get('next'))}", 303)
    start_session(request, response, secret)
    return response


@router.post("/logout")
async def logout(request: Request) -> Response:
    check_origin(request)
    await read_form(request)
    response = RedirectResponse(f"{prefix(request.scope)}/login", 303)
    end_session(request, response)
    return response


def _form(request: Request, target: str | None, message: str | None, status: int = 200) -> Response:
    context = {"title": "Sign in", "next": own_path(target), "message": message}
    return render(request, "login.html", context, status)
