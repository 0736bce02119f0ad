"""The JSON schema of the configuration file, for editors: settings, rules, meters, plans, entities, customers."""

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from config.customers import Customer
from config.entities import Entity
from config.meters import Meter
from config.plans import Plan
from config.revision import Rules
from config.settings import Settings
from operators.rating.schema import AnyCharge

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


class ConfigurationFile(BaseModel):
    """The whole file. Several files of a directory are read as one."""

    model_config = ConfigDict(extra="forbid", title="Meterbridge configuration")

    settings: Settings = Field(default_factory=Settings, description="Servers, paths and sizes of the processes.")
    rules: Rules = Field(default=Rules(), description="Rules of intake and booking; part of the revision.")
    meters: list[Meter] = Field(default_factory=list, description="What is counted.")
    plans: list[Plan] = Field(default_factory=list, description="What it costs.")
    entities: list[Entity] = Field(default_factory=list, description="Whose books.")
    customers: list[Customer] = Field(default_factory=list, description="Who uses it.")


def json_schema() -> dict[str, Any]:
    """Return the schema of the configuration file (JSON Schema 2020-12)."""
    schema: dict[str, Any] = {"$schema": DIALECT, **ConfigurationFile.model_json_schema(mode="validation")}
    items = schema["$defs"]["Customer"]["properties"]["subjects"]["items"]
    # The model takes a bare subject too, which its schema cannot know.
    bare = {"type": "string", "minLength": 1, "maxLength": 256}
    schema["$defs"]["Customer"]["properties"]["subjects"]["items"] = {"anyOf": [bare, items]}
    # A version holds its charges raw; the price engine has their schema.
    charge = TypeAdapter(AnyCharge).json_schema(mode="validation", ref_template="#/$defs/{model}")
    schema["$defs"] |= charge.pop("$defs")
    schema["$defs"]["PlanVersion"]["properties"]["charges"]["items"] = charge
    _one_value_for_a_list(schema["$defs"])
    return schema


def _one_value_for_a_list(definitions: dict[str, Any]) -> None:
    """Let a charge's filter and a row's `when` name one value without a list, as the price engine does."""
    for definition in definitions.values():
        properties = definition.get("properties", {})
        for name in ("filter", "when"):
            values = properties.get(name, {}).get("additionalProperties")
            if "model" in properties and isinstance(values, dict):
                properties[name]["additionalProperties"] = {"anyOf": [{"type": "string"}, values]}
