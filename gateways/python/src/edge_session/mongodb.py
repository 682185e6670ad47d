"""Sessions in MongoDB, in the documents and with the queries of connect-mongo 6.

A document is `{_id, expires: Date, session}`, `session` being JSON text: a Node application
shares them. Needs the extra `edge-session[mongodb]`.
"""

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal
from urllib.parse import parse_qsl

from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from pymongo import AsyncMongoClient, ReadPreference
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import (
    AutoReconnect,
    DuplicateKeyError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from .store import Changed, Content, Stored, StoreError, now

_log = logging.getLogger("edge_session")

_Document = dict[str, Any]

#: A conditional write is tried so often while others change the document.
_TRIES = 16

#: The most that a document may have is 16 MiB, its other fields included.
_MAX_TEXT = (16 << 20) - 1024


class MongoStore:
    """Sessions in a MongoDB collection.

    What was answered was written with the URI's write concern, else with `majority`; sessions
    are read from the primary, whatever the URI says. The TTL index on `expires`, by which
    MongoDB removes expired sessions, is made at first use.

    - `client`: a `mongodb://` URI, or a client that the application has already.
    - `db_name`: the database; else the one that the URI names, else `test`.
    """

    def __init__(
        self,
        client: str | AsyncMongoClient[Any],
        *,
        collection: str = "sessions",
        db_name: str | None = None,
    ) -> None:
        self._client = _connect(client) if isinstance(client, str) else client
        database = self._client[db_name] if db_name else self._client.get_default_database("test")
        self._sessions: AsyncCollection[_Document] = database.get_collection(
            collection,
            # As numbers: JavaScript's dates go further than Python's.
            codec_options=CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_MS),
            # Who reads a session that is not the last one loses changes: no secondary will do.
            read_preference=ReadPreference.PRIMARY,
        )
        self._has_index = False

    async def close(self) -> None:
        """Close the client's connections."""
        await self._client.close()

    async def load(self, id: str) -> Stored | None:
        with _store_errors():
            return await self._find(id)

    async def create(self, id: str, content: Content) -> Literal["done", "taken"]:
        with _store_errors():
            await self._make_index()
            # In the order that an upsert of connect-mongo's leaves.
            document = {"_id": id, "expires": _date(content), "session": _text(content)}
            try:
                await self._sessions.insert_one(document)
            except DuplicateKeyError:
                return "taken"
            return "done"

    async def replace(self, id: str, content: Content, expected: str | None) -> Changed:
        update = {"$set": {"_id": id, "session": _text(content), "expires": _date(content)}}
        with _store_errors():
            if expected is None:
                await self._make_index()
                await self._sessions.update_one({"_id": id}, update, upsert=True)
                return "done"

            async def write(query: _Document) -> int:
                return (await self._sessions.update_one(query, update)).matched_count

            return await self._conditionally(id, expected, write)

    async def touch(self, id: str, expires: int) -> Changed:
        update = {"$set": {"expires": DatetimeMS(expires)}}
        with _store_errors():
            updated = await self._sessions.update_one(_live(id), update)
            return "done" if updated.matched_count else "missing"

    async def delete(self, id: str, expected: str | None) -> Changed:
        async def delete(query: _Document) -> int:
            return (await self._sessions.delete_one(query)).deleted_count

        with _store_errors():
            if expected is None:
                return "done" if await delete(_live(id)) else "missing"
            return await self._conditionally(id, expected, delete)

    async def _conditionally(
        self, id: str, expected: str, write: Callable[[_Document], Awaitable[int]]
    ) -> Changed:
        """Write while the stored text is the expected one; `write` says how many it met."""
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
        document = await self._sessions.find_one(_live(id))
        if document is None:
            return None
        session, expires = document.get("session"), document.get("expires")
        return Stored(
            # Another format is one that the component cannot read: it is left alone.
            session if isinstance(session, str) else "",
            max(int(expires), 0) if isinstance(expires, DatetimeMS) else None,
        )

    async def _make_index(self) -> None:
        if self._has_index:
            return
        try:
            await self._sessions.create_index([("expires", 1)], expireAfterSeconds=0)
        except OperationFailure as error:
            # Sessions work without it; expired ones are never served, only stay.
            _log.error("the index that removes expired sessions was not made: code %s", error.code)
        self._has_index = True


def _connect(uri: str) -> AsyncMongoClient[Any]:
    """With settings of ours where the URI has none."""
    given = {name.lower() for name, _ in parse_qsl(uri.partition("?")[2], keep_blank_values=True)}
    ours = {
        "serverSelectionTimeoutMS": 2000,
        "connectTimeoutMS": 2000,
        "w": "majority",
        "appName": "edge-session",
    }
    settings: Any = {name: value for name, value in ours.items() if name.lower() not in given}
    return AsyncMongoClient(uri, **settings)


def _live(id: str) -> _Document:
    """connect-mongo's query: the document of that `_id` which has not expired."""
    is_live = [{"expires": {"$exists": False}}, {"expires": {"$gt": DatetimeMS(now())}}]
    return {"_id": id, "$or": is_live}


def _text(content: Content) -> str:
    # Characters have up to four bytes: most texts need not be measured.
    if 4 * len(content.data) > _MAX_TEXT and len(content.data.encode()) > _MAX_TEXT:
        raise StoreError("the session is too large for MongoDB", refused=True)
    return content.data


def _date(content: Content) -> DatetimeMS:
    # The largest that BSON has.
    return DatetimeMS(min(content.expires, 2**63 - 1))


@contextmanager
def _store_errors() -> Iterator[None]:
    """The driver's errors in words for the log: its own may hold a password or an identifier."""
    try:
        yield
    except ServerSelectionTimeoutError as error:
        raise StoreError("no MongoDB server can be reached") from error
    except AutoReconnect as error:
        raise StoreError("the connection to MongoDB failed") from error
    except OperationFailure as error:
        raise StoreError(f"MongoDB failed: code {error.code}") from error
    except PyMongoError as error:
        raise StoreError(f"MongoDB failed: {type(error).__name__}") from error
