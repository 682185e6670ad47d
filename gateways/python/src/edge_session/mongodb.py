"""Sessions in MongoDB, with the documents and queries of connect-mongo 6.

A document is `{_id, expires: Date, session}`, where `session` is JSON text; Node applications can
share them. Needs the extra `edge-session[mongodb]`.
"""

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Literal, TypeAlias, cast

from anyio import move_on_after, to_thread
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from pymongo import AsyncMongoClient, MongoClient, ReadPreference
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import (
    AutoReconnect,
    DuplicateKeyError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from ._clients import OwnClients, in_thread
from ._loops import asyncio_loop
from ._mongodb_uri import checked, names
from .options import OptionsError, Problem
from .store import Changed, Content, Stored, StoreError, now

_log = logging.getLogger("edge_session")

_Document = dict[str, Any]
_Client: TypeAlias = AsyncMongoClient[Any] | MongoClient[Any]
_Sessions: TypeAlias = AsyncCollection[_Document]

#: The maximum attempts at a conditional write while others change the document.
_TRIES = 16

#: Documents are limited to 16 MiB, including their other fields.
_MAX_TEXT = (16 << 20) - 1024

#: The server's code for a missing privilege.
_UNAUTHORIZED = 13

#: The server's codes for documents that it never accepts.
_REFUSALS = {
    121: "the document is not valid to the collection's validator",
    10003: "a document in a capped collection cannot grow",
    10334: "the document is too large",
    17419: "the document is too large",
    17420: "the document is too large",
}

#: The maximum time that a request waits for the index, in seconds.
_INDEX_PATIENCE = 0.5


class MongoStore:
    """Sessions in a MongoDB collection.

    Acknowledged writes have the URI's write concern, or `majority` if it has none. Sessions are
    always read from the primary, whatever the URI says. The TTL index on `expires`, with which
    MongoDB removes expired sessions, is created on first use; if that fails, the reason is logged.

    - `client`: a `mongodb://` URI, or a client of the application: an `AsyncMongoClient`, in the
      event loop that it belongs to, or a `MongoClient`, which is called in threads.
    - `db_name`: the database; otherwise the one in the URI, or `test`.
    - `auto_remove`: how expired sessions are deleted: `native`, by MongoDB with the index, or
      `disabled`, not by this store. Expired sessions are never served in either case.

    With a URI, each asyncio event loop has its own `AsyncMongoClient`, which is closed when the
    loop ends; on trio, there is a `MongoClient`.
    """

    def __init__(
        self,
        client: str | AsyncMongoClient[Any] | MongoClient[Any],
        *,
        collection: str = "sessions",
        db_name: str | None = None,
        auto_remove: Literal["native", "disabled"] = "native",
    ) -> None:
        if auto_remove not in ("native", "disabled"):
            message = f"is {auto_remove!r}, not one of 'native', 'disabled'"
            raise OptionsError([Problem("auto_remove", message)])

        def sessions(client: _Client) -> _Sessions:
            return _collection(client, collection, db_name)

        self._clients = (
            _OwnClients(client, sessions)
            if isinstance(client, str)
            else _GivenClient(client, sessions(client))
        )
        self._name = collection
        self._needs_index = auto_remove == "native"

    async def close(self) -> None:
        """Closes the client's connections; with a URI, those of the running event loop."""
        await self._clients.close()

    async def load(self, id: str) -> Stored | None:
        with _store_errors():
            return await self._find(id)

    async def create(self, id: str, content: Content) -> Literal["done", "taken"]:
        with _store_errors():
            await self._make_index()
            # The field order of an upsert by connect-mongo.
            document = {"_id": id, "expires": _date(content), "session": _text(content)}
            sessions = await self._clients.sessions()
            with suppress(DuplicateKeyError):
                await sessions.insert_one(document)
                return "done"
            # It may have expired, and not have been removed yet. An upsert, because the server may
            # remove it just now.
            expired = {"_id": id, "expires": {"$lte": DatetimeMS(now())}}
            with suppress(DuplicateKeyError):
                await sessions.replace_one(expired, document, upsert=True)
                return "done"
            return "taken"

    async def replace(self, id: str, content: Content, expected: str | None) -> Changed:
        update = {"$set": {"_id": id, "session": _text(content), "expires": _date(content)}}
        with _store_errors():
            sessions = await self._clients.sessions()
            if expected is None:
                await self._make_index()
                await sessions.update_one({"_id": id}, update, upsert=True)
                return "done"

            async def write(query: _Document) -> int:
                return (await sessions.update_one(query, update)).matched_count

            return await self._conditionally(id, expected, write)

    async def touch(self, id: str, expires: int) -> Changed:
        update = {"$set": {"expires": DatetimeMS(expires)}}
        with _store_errors():
            sessions = await self._clients.sessions()
            updated = await sessions.update_one(_live(id), update)
            return "done" if updated.matched_count else "missing"

    async def delete(self, id: str, expected: str | None) -> Changed:
        with _store_errors():
            sessions = await self._clients.sessions()

            async def delete(query: _Document) -> int:
                return (await sessions.delete_one(query)).deleted_count

            if expected is None:
                return "done" if await delete(_live(id)) else "missing"
            return await self._conditionally(id, expected, delete)

    async def _conditionally(
        self, id: str, expected: str, write: Callable[[_Document], Awaitable[int]]
    ) -> Changed:
        """Writes only if the stored text is `expected`; `write` returns how many documents
        matched."""
        for _ in range(_TRIES):
            if await write(_live(id) | {"session": expected}):
                return "done"
            stored = await self._find(id)
            if stored is None:
                return "missing"
            if stored.data != expected:
                return stored
        raise StoreError("a session changed too often")

    async def _find(self, id: str) -> Stored | None:
        sessions = await self._clients.sessions()
        document = await sessions.find_one(_live(id))
        if document is None:
            return None
        session, expires = document.get("session"), document.get("expires")
        return Stored(
            # A document in another format, which the component cannot read, is left unchanged.
            session if isinstance(session, str) else "",
            max(int(expires), 0) if isinstance(expires, DatetimeMS) else None,
        )

    async def _make_index(self) -> None:
        if not self._needs_index:
            return
        # One request waits for the index, for a limited time. With very many sessions, MongoDB
        # takes minutes to build it, whether or not a request waits.
        self._needs_index = False
        is_settled = False
        try:
            with move_on_after(_INDEX_PATIENCE):
                await self._settle_index()
                is_settled = True
        finally:
            self._needs_index = not is_settled

    async def _settle_index(self) -> None:
        sessions = await self._clients.sessions()
        try:
            await sessions.create_index([("expires", 1)], expireAfterSeconds=0)
        except OperationFailure as error:
            # Sessions work without the index: expired ones are never served, but are not removed.
            if problem := await _without_index(sessions, error):
                _log.error(
                    "MongoDB: collection %s: %s; or set auto_remove to 'disabled' if sessions are "
                    "deleted in another way",
                    self._name,
                    problem,
                )


async def _without_index(sessions: _Sessions, error: OperationFailure) -> str | None:
    """Returns the problem and how to fix it; None if expired sessions are removed anyway."""
    name = (error.details or {}).get("codeName") or "?"
    try:
        indexes = await sessions.index_information()
    except OperationFailure:
        indexes = {}
    for index, made in indexes.items():
        if made["key"] == [("expires", 1)] and "partialFilterExpression" not in made:
            after = made.get("expireAfterSeconds")
            if after == 0:
                return None
            effect = (
                "does not remove expired sessions"
                if after is None
                else f"removes sessions {after:.0f} s after they have expired"
            )
            return f"its index {index} {effect}. Drop the index, and a correct one is created"
    why = f"the index that removes expired sessions was not created: {name}, code {error.code}"
    if (await _options(sessions)).get("capped"):
        return f"{why}. The collection is capped and also drops live sessions: use another one"
    grant = "Grant the user createIndex, or create" if error.code == _UNAUTHORIZED else "Create"
    return f"{why}. {grant} it manually: createIndex({{expires: 1}}, {{expireAfterSeconds: 0}})"


async def _options(sessions: _Sessions) -> Mapping[str, Any]:
    try:
        return await sessions.options()
    except OperationFailure:
        return {}


class _GivenClient:
    """A client of the application."""

    def __init__(self, client: _Client, sessions: _Sessions) -> None:
        if not client.write_concern.acknowledged:
            message = "has the write concern w=0: failed writes would go unnoticed"
            raise OptionsError([Problem("client", message)])
        self._client = client
        self._sessions = sessions

    async def sessions(self) -> _Sessions:
        if isinstance(self._client, AsyncMongoClient) and asyncio_loop() is None:
            raise StoreError(
                "an AsyncMongoClient needs asyncio: give the store the URI, or a MongoClient"
            )
        return self._sessions

    async def close(self) -> None:
        await _close(self._client)


class _OwnClients:
    """Clients of the store's own, and the collection of each."""

    def __init__(self, uri: str, sessions: Callable[[_Client], _Sessions]) -> None:
        uri = checked(uri)

        def connect(kind: Any, **more: Any) -> tuple[_Client, _Sessions]:
            client = _connect(kind, uri, **more)
            return client, sessions(client)

        async def close(own: tuple[_Client, _Sessions]) -> None:
            await _close(own[0])

        self._own = OwnClients(
            partial(connect, AsyncMongoClient), partial(connect, MongoClient, connect=False), close
        )

    async def sessions(self) -> _Sessions:
        return (await self._own.get())[1]

    async def close(self) -> None:
        await self._own.close()


async def _close(client: _Client) -> None:
    if isinstance(client, MongoClient):
        await to_thread.run_sync(client.close)
    else:
        await client.close()


def _connect(kind: Any, uri: str, **more: Any) -> Any:
    """Creates a client, with defaults for settings that the URI does not have."""
    given = names(uri)
    ours = {
        "serverSelectionTimeoutMS": 2000,
        "connectTimeoutMS": 2000,
        "w": "majority",
        "appName": "edge-session",
    }
    if kind is MongoClient:
        # A waiting thread cannot be cancelled, so it needs its own timeout.
        ours["socketTimeoutMS"] = 10_000
    settings = {name: value for name, value in ours.items() if name.lower() not in given}
    return kind(uri, **settings, **more)


def _collection(client: _Client, name: str, db_name: str | None) -> _Sessions:
    database: Any = client[db_name] if db_name else client.get_default_database("test")
    sessions = database.get_collection(
        name,
        # As numbers, because JavaScript's dates have a larger range than Python's.
        codec_options=CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_MS),
        # Changes based on an outdated read would be lost, so secondaries are not used.
        read_preference=ReadPreference.PRIMARY,
    )
    return cast(_Sessions, _InThreads(sessions) if isinstance(client, MongoClient) else sessions)


class _InThreads:
    """A `MongoClient`'s collection, whose operations run in threads."""

    def __init__(self, collection: Any) -> None:
        self._collection = collection

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        operation = getattr(self._collection, name)

        async def perform(*args: Any, **settings: Any) -> Any:
            return await in_thread(operation, *args, **settings)

        return perform


def _live(id: str) -> _Document:
    """connect-mongo's query for a document that has not expired."""
    is_live = [{"expires": {"$exists": False}}, {"expires": {"$gt": DatetimeMS(now())}}]
    return {"_id": id, "$or": is_live}


def _text(content: Content) -> str:
    # A character has at most four bytes, so most texts need not be encoded to measure them.
    if 4 * len(content.data) > _MAX_TEXT and len(content.data.encode()) > _MAX_TEXT:
        raise StoreError("the session is too large for MongoDB", refused=True)
    return content.data


def _date(content: Content) -> DatetimeMS:
    # The largest BSON date.
    return DatetimeMS(min(content.expires, 2**63 - 1))


@contextmanager
def _store_errors() -> Iterator[None]:
    """Replaces the driver's error messages, which may contain a password or an identifier."""
    try:
        yield
    except ServerSelectionTimeoutError as error:
        raise StoreError("no MongoDB server can be reached") from error
    except AutoReconnect as error:
        raise StoreError("the connection to MongoDB failed") from error
    except OperationFailure as error:
        if reason := _REFUSALS.get(error.code or 0):
            raise StoreError(f"MongoDB refused the document: {reason}", refused=True) from error
        raise StoreError(f"MongoDB failed: code {error.code}") from error
    except RuntimeError as error:
        if "event loop" not in str(error):
            raise
        raise StoreError(
            "the AsyncMongoClient belongs to another event loop: give the store the URI"
        ) from error
    except PyMongoError as error:
        raise StoreError(f"MongoDB failed: {type(error).__name__}") from error
