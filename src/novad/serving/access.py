"""Who may ask: API keys as a dependency of routes."""

from typing import Annotated, Any

from fastapi import Depends
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from novad.serving.keys import KeyRing, Role
from novad.serving.request_error import RequestError

__all__ = ["requires"]


def requires(keys: KeyRing, role: Role) -> Any:
    """A dependency that lets only keys of ``role`` or more through; its value is the key's own role."""
    bearer = HTTPBearer(auto_error=False, description="An API key that `novad serve` made.")
    header = APIKeyHeader(name="X-API-Key", auto_error=False)

    async def check(
        authorization: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
        key: Annotated[str | None, Depends(header)],
    ) -> Role:
        given = authorization.credentials if authorization else key
        held = keys.role(given) if given else None
        if held is None:
            raise RequestError(401, "no_key", "send an API key as Authorization: Bearer KEY, or as X-API-Key")
        if held < role:
            raise RequestError(403, "wrong_role", f"this key's role is below {role.name.lower()}")
        return held

    return Depends(check)
