"""The official conformance suite against the server over HTTP, for both protocol revisions."""

import re
from pathlib import Path

import pytest

from test_clients import CLIENTS, _started, node, served_to_anybody

pytestmark = pytest.mark.clients
__all__ = ["node"]

SUITE = CLIENTS / "node_modules/@modelcontextprotocol/conformance/dist/index.js"
SUITE_TIMEOUT_S = 300

BOTH = {
    "calls a tool of its own by name (test_image_content and the like)": """
        tools-call-image tools-call-audio tools-call-embedded-resource tools-call-mixed-content
        tools-call-with-progress""",
    "reads a resource of its own (test://static-text and the like)": """
        resources-read-text resources-read-binary resources-templates-read""",
    "gets a prompt of its own (test_simple_prompt and the like), or completes an argument of one": """
        prompts-get-simple prompts-get-with-args prompts-get-embedded-resource prompts-get-with-image
        completion-complete""",
    "lists a tool of its own with a schema of every kind; not scored": "json-schema-2020-12",
}
"""Scenarios that ask for fixtures of the suite in each revision, by why they cannot pass without."""

MISSING = {
    "2025-11-25": {
        "calls a tool of its own that asks the client for a text or the user": """
            tools-call-sampling tools-call-elicitation elicitation-sep1034-defaults
            elicitation-sep1330-enums""",
        "needs protocol logging, which is deprecated and which no tool here uses": """
            logging-set-level tools-call-with-logging""",
        "subscribes to a resource of its own (test://watched-resource)": """
            resources-subscribe resources-unsubscribe""",
        "needs a tool of its own that closes its stream, and a store of events; not scored": """
            server-sse-polling""",
    },
    "2026-07-28": {
        "calls tools of its own (test_missing_capability, and two that change lists); the other checks"
        " of it pass": "server-stateless",
        "calls a tool or gets a prompt of its own that needs an answer of the client": """
            input-required-result-basic-elicitation input-required-result-basic-sampling
            input-required-result-basic-list-roots input-required-result-request-state
            input-required-result-multiple-input-requests input-required-result-multi-round
            input-required-result-non-tool-request input-required-result-result-type
            input-required-result-tampered-state input-required-result-capability-check""",
        "needs the extension for tasks, which the SDK does not have; not scored": """
            tasks-lifecycle tasks-capability-negotiation tasks-wire-fields tasks-request-state-removal
            tasks-mrtr-input tasks-request-headers tasks-dispatch-and-envelope
            tasks-required-task-error tasks-mrtr-composition""",
        "needs a tool of its own with arguments that are sent as headers; not scored": """
            http-custom-header-server-validation""",
    },
}


@pytest.mark.parametrize("revision", MISSING)
def test_nothing_fails_but_what_asks_for_fixtures_of_the_suite(
    revision: str, node: str, tmp_path: Path
) -> None:
    reviewed = {
        name for each in (BOTH, MISSING[revision]) for names in each.values() for name in names.split()
    }
    with served_to_anybody(tmp_path / "home") as address:
        command = [node, str(SUITE), "server", "--url", address, "--requirements", revision]
        done = _started([*command, "-o", str(tmp_path / "results")], SUITE_TIMEOUT_S, {})
    failed = set(re.findall(r"^✗ ([\w-]+):", done.stdout, re.M))
    passed = set(re.findall(r"^✓ ([\w-]+):", done.stdout, re.M))

    assert failed == reviewed, done.stdout[-3_000:]
    assert {"dns-rebinding-protection", "tools-list", "tools-call-error", "resources-list"} <= passed
