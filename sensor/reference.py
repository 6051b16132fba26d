"""The reference page of the evidence, from its definition: `python -m sensor.reference FILE`.

Kinds, weights, sentences and hosts come from the modules and the data file that apply them, so that the page can't say anything else.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sensor import classify, data, evidence
from sensor.classify import Likelihood, SightingClass
from sensor.providers import Providers

_CLASSES = {
    SightingClass.REGISTERED: "a governed agent, whatever speaks for or against",
    SightingClass.SHADOW: f"an agent that nobody registered: {classify.SHADOW_WEIGHT} points or more",
    SightingClass.UNATTRIBUTABLE: "as many points, and neither the program nor a container or unit is known",
    SightingClass.NOTHING: f"fewer than {classify.SHADOW_WEIGHT} points",
}


def page() -> str:
    """The whole page, Markdown."""
    known = data.built_in()
    return "\n\n".join([_head(), _kinds(), _classes(), _unknown(), _file(), _hosts(known), _packages(known), _variables(known)]) + "\n"


def _head() -> str:
    return """# Evidence

What `hopgate discover` takes for a sign of an agent, and how much each sign weighs. This page is generated from `sensor/evidence.py` and
`sensor/providers.yaml`; `make gen` writes it again.

An agent can't be proven from outside: what is sealed in TLS is not read, and no memory of a program is. Signs are weighed. Each kind has
points; kinds of one aspect are views of the same fact, so only the one with the most points counts; the sum is cut to 0 to 100. Signs
with negative points speak against."""


def _kinds() -> str:
    rows = [
        f"| `{kind}` | {found.aspect} | {found.weight} | {found.sentence.format('…')} | {found.why} |"
        for kind, found in sorted(evidence.DEFINITIONS.items(), key=lambda item: (-item[1].weight, item[0]))
    ]
    return "## Kinds\n\n| kind | aspect | points | what it says | why so many |\n|---|---|---|---|---|\n" + "\n".join(rows)


def _classes() -> str:
    classes = "\n".join(f"| `{kind}` | {_CLASSES[kind]} |" for kind in SightingClass)
    words = {word: min(weight for weight in range(101) if classify.likelihood(weight) is word) for word in Likelihood}
    return f"""## Classes

| class | what it takes |
|---|---|
{classes}

In words: {", ".join(f"from {first} points on {word}" for word, first in sorted(words.items(), key=lambda item: item[1]))}.

One handshake of a program that is neither a browser nor a command-line client has {classify.SHADOW_WEIGHT} points or more: it is
worth a look. One call with curl has not: mostly a person tries something. The same call from a container, with a key in the environment,
or again and again, has."""


def _unknown() -> str:
    return """## What can't be known

- Names that a program hides: Encrypted ClientHello shows the outer name only, a VPN or a tunnel none. A gateway under a name of your own
  is known when you name it (below).
- What was asked for: a handshake says which API was called, not what for.
- Libraries: only files that are mapped are seen, which native parts of packages are. Plain Python and JavaScript files are not mapped;
  they are known when the program was started from a package's folder, by a link into it, or with `python -m`. A static program shows only
  itself.
- Variables: names as the program was started with them. What it sets or reads from a file later is not seen. Values are never kept.
- Command lines: the program, an interpreter's script or module, and names of options. Values, prompts among them, are never shown.
- A program can be named as a browser is. That takes points away, no more: the rest of what it does still counts.
- JA4 names a TLS library, never a vendor: the SDKs of one runtime share one. It only ever supports."""


def _file() -> str:
    return """## A file of your own

`hopgate discover --providers FILE` adds to what is known. A mistake in the file is told with its line, and nothing is watched until it is
mended.

```yaml
providers:
  - name: Our gateway
    hosts: [llm.example.com]        # this name and all below it; `*` stands for any text within one label
packages:
  - name: Our agent
    is: Agent                       # or SDK: a library that agents use
    paths: [our_agent]              # folder below site-packages, dist-packages or node_modules
variables: [OUR_GATEWAY_KEY]        # names of variables that hold a key
```"""


def _hosts(known: Providers) -> str:
    rows = "\n".join(f"| {provider.name} | {', '.join(f'`{host}`' for host in provider.hosts)} |" for provider in known.providers)
    return f"## Hosts of model APIs\n\n| provider | hosts, and all names below them |\n|---|---|\n{rows}"


def _packages(known: Providers) -> str:
    rows = "\n".join(
        f"| {package.name} | {package.kind} | {', '.join(f'`{path}`' for path in package.paths)} |" for package in known.packages
    )
    return f"## Packages\n\n| what | is | folders |\n|---|---|---|\n{rows}"


def _variables(known: Providers) -> str:
    return f"## Variables\n\n{', '.join(f'`{name}`' for name in sorted(known.variables))}."


def main(arguments: list[str]) -> int:
    """Write the page to the file that is named. Exit code 2 when none is."""
    if len(arguments) != 1:
        sys.stderr.write("expected the file to write: python -m sensor.reference FILE\n")
        return 2
    Path(arguments[0]).write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
