"""A view counter in FastAPI."""

import os

from edge_session import MemoryStore, SessionMiddleware
from fastapi import FastAPI, Request

app = FastAPI()
app.add_middleware(SessionMiddleware, secret=os.environ["SECRET"], store=MemoryStore())


@app.get("/")
def count(request: Request) -> str:
    session = request.session
    session["viewCount"] = session.get("viewCount", 0) + 1
    return f"you have visited this page {session['viewCount']} times"
