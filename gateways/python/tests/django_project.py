"""A Django project with Django's users, logins, messages and admin, and the gateway's sessions."""

import tempfile
from pathlib import Path
from typing import Any

import django
from behind_gateway import meet
from django.conf import settings

USER, PASSWORD = "ada", "a password of hers"

_folder = tempfile.TemporaryDirectory(prefix="edge-session-django-")

settings.configure(
    SECRET_KEY="only for tests",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
    ],
    MIDDLEWARE=[
        "edge_session.headers.django.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    # Not imported, because that would fail.
    SESSION_ENGINE="none.of.djangos",
    MESSAGE_STORAGE="django.contrib.messages.storage.session.SessionStorage",
    CSRF_USE_SESSIONS=True,
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": Path(_folder.name) / "db.sqlite3",
        }
    },
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
    LOGIN_REDIRECT_URL="/account",
    LOGOUT_REDIRECT_URL="/",
)
django.setup()

from django.contrib import admin, messages  # noqa: E402
from django.contrib.auth import alogin, authenticate, login, logout  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import HttpRequest, HttpResponse, JsonResponse  # noqa: E402
from django.middleware.csrf import get_token  # noqa: E402
from django.urls import path  # noqa: E402
from django.views.decorators.csrf import csrf_exempt  # noqa: E402

call_command("migrate", verbosity=0)
User.objects.create_superuser(USER, password=PASSWORD)
application = get_wsgi_application()

#: The actions of the view at /act.
acts: dict[str, Any] = {}


def log_in(request: HttpRequest) -> HttpResponse:
    if request.method == "GET":
        return HttpResponse(get_token(request))
    form = request.POST
    user = authenticate(request, username=form["username"], password=form["password"])
    if user is None:
        return HttpResponse("wrong", status=403)
    login(request, user)
    messages.success(request, "Welcome")
    return HttpResponse("ok")


@csrf_exempt
async def log_in_async(request: HttpRequest) -> HttpResponse:
    await alogin(request, await User.objects.aget(username=USER))
    return HttpResponse("ok")


def account(request: HttpRequest) -> HttpResponse:
    if not request.user.is_authenticated:
        return HttpResponse("nobody", status=401)
    said = [str(message) for message in messages.get_messages(request)]
    kept = {key: value for key, value in request.session.items() if key[0] == "k"}
    return JsonResponse({"user": request.user.get_username(), "said": said, "kept": kept})


@csrf_exempt
def log_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    return HttpResponse("ok")


def put(request: HttpRequest, key: str, value: str) -> HttpResponse:
    meet(request.GET.get("meet"))
    request.session[key] = value
    return HttpResponse("ok")


def act(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(acts["act"](request)))


urlpatterns = [
    path("login", log_in),
    path("login-async", log_in_async),
    path("account", account),
    path("logout", log_out),
    path("put/<key>/<value>", put),
    path("act", act),
    path("admin/", admin.site.urls),
]
