"""Bodies of score requests in the OpenAPI document; they are read by hand, to be held to their limits."""

from typing import Any

from novad.tracking.model import INPUT_COLUMN

__all__ = ["INVOCATION_BODY", "SCORE_BODY"]

Schema = dict[str, Any]


def _object(**properties: Schema) -> Schema:
    """Of a JSON object with exactly these properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items, "minItems": 1}


def _body(json_schema: Schema, example: Schema, form: Schema | None = None) -> Schema:
    content = {"application/json": {"schema": json_schema, "example": example}}
    if form is not None:
        content["multipart/form-data"] = {"schema": form}
    return {"requestBody": {"required": True, "content": content}}


_EXAMPLE = "iVBORw0KGgo..."
_IMAGE = {"type": "string", "format": "byte", "description": "An image file in base64."}
_RECORDS = _list(_object(**{INPUT_COLUMN: _IMAGE}))
_SPLIT = _object(columns={"const": [INPUT_COLUMN]}, data=_list(_list(_IMAGE) | {"maxItems": 1}))

SCORE_BODY = _body(
    _object(images=_list(_IMAGE)),
    {"images": [_EXAMPLE]},
    form=_object(images=_list({"type": "string", "format": "binary"})),
)
INVOCATION_BODY = _body(
    {"oneOf": [_object(dataframe_split=_SPLIT), _object(dataframe_records=_RECORDS)]},
    {"dataframe_split": {"columns": [INPUT_COLUMN], "data": [[_EXAMPLE]]}},
)
