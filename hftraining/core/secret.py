"""Secrets stay out of files and output: texts with *** for passwords, and config fields that may hold none.

A secret is known by its place (in a URL, after `password=`) and by its value: once `remember` was given a URL, its
password, query values and fragment are masked wherever they stand, also encoded. Elsewhere than in their URL, values of
fewer than SHORTEST signs and plain words of a query (sslmode=require) are just words, and stay. Of a key that
`remember_key` was given, every PART of signs in a row is masked, also with other signs between them.
"""

import base64
import functools
import html
import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from types import TracebackType
from typing import Any
from urllib.parse import quote, quote_plus, unquote

from hftraining.core.errors import ConfigError
from hftraining.core.values import flatten

MASK = "***"
SHORTEST = 4
PART = 6  # letters and digits in a row of a key; shorter parts cannot be told from words
STORAGE = "search.storage"  # the one field of a command that may hold a secret; a run does not have it
STORAGE_VARIABLE = "HFTRAINING_STORAGE"
STORAGE_FROM_VARIABLE = f"{STORAGE}=${{oc.env:{STORAGE_VARIABLE}}}"
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
# Settings of Hydra that may name a variable: they stay unresolved in its files. Its own notes repeat the overrides.
OF_HYDRA = ("hydra.launcher.", "hydra.job.env_set.", "hydra.overrides.", "hydra.job.override_dirname", "hydra.runtime.")

# With one slash, too: a URL that was taken for a path. Bounded, like all repetitions that something must follow.
_SCHEME = r"[A-Za-z](?:[A-Za-z0-9+.-]{0,30}://|[A-Za-z0-9+.-]{1,30}:/)"
_URL = re.compile(rf"({_SCHEME})([^\s'\"<>`]*)")
_URL_TO_THE_END = re.compile(rf"({_SCHEME})(.*)", re.DOTALL)
_VALUE = r"(?:(?:basic|bearer)\s+)?('[^']*'|\"[^\"]*\"|[^\s,;&]+)"
_PAIR = re.compile(
    r"(?i)((?:password|passwd|passphrase|pwd|secret|api[_-]?key|authorization|credentials?)[\"']?\s*[=:]\s*"
    r"|(?<![a-z])(?:\w{0,40}[_-])?(?:token|key)(?:[\"']?\s*=|[\"']\s*:)\s*)" + _VALUE
)
# An interpolation of a resolver of OmegaConf's own, under a composed name, or of the storage or a whole group.
_TAKEN = re.compile(r"\$\{\s*oc\.|\$\{[^}:]*\$\{|\$\{[^}]*\bstorage\b|\$\{\s*[.]*(?:search|hydra)\s*\}")
_CUT = re.compile(r"[^:/?#\[\]]*:(?![0-9]*(?:[/?#]|\Z))[^/?#]+")  # user:password whose rest a message left out
_PLAIN_WORD = re.compile(r"[a-z]+(?:-[a-z]+)*|[0-9]{1,5}")  # require, verify-full, a port, a time in seconds
_secrets: set[str] = set()
_users: set[str] = set()
_parts: set[str] = set()


def remember(url: str) -> None:
    """Mask the secret parts of this URL wherever they stand from now on, in this process."""
    match = _URL_TO_THE_END.search(url)
    if not match:
        return
    after = match[2]
    userinfo, rest = _split(after)
    user, _, password = userinfo.partition(":")
    rest, _, fragment = rest.partition("#")
    # Of an unquoted p@ss/word a database calls the host "ss", so pieces count. So does a query with an @ in it.
    secrets = [password, *re.split(r"[@:/?#\s'\"]", password), fragment]
    for query in {rest.partition("?")[2], after.partition("?")[2].partition("#")[0]}:
        for pair in re.split("[&;]", query):
            name, _, value = pair.rpartition("=")
            is_word = _PLAIN_WORD.fullmatch(unquote(value)) and not _PAIR.match(f"{name}=x")
            secrets += [] if is_word else [value]
    if password:
        secrets.append(base64.b64encode(unquote(userinfo).encode()).decode())  # as in the header of a request
    _secrets.update(text for text in secrets if len(text) >= SHORTEST)
    _users.update(text for text in [user] if len(text) >= SHORTEST)


def remember_key(key: str) -> None:
    """Mask this key from now on in this process, whole or in parts, also in base64, and whole in hexadecimal digits."""
    for form in (key, base64.b64encode(key.encode()).decode()):
        letters = "".join(letter for letter in form.casefold() if letter.isalnum())
        parts = {letters[begin : begin + PART] for begin in range(len(letters) - PART + 1)}
        _parts.update(part for part in parts if not part.isdigit())  # an amount of money is no part of a key
    _secrets.update(text for text in (key, key.encode().hex()) if len(text) >= SHORTEST)


def masked(text: str, *, users: bool = False) -> str:
    """The text without user, password, query values and fragment of its URLs, password=... and remembered secrets.

    users: mask the users of remembered URLs by value, too: for errors. Elsewhere a user may be any word.
    """
    for name in PROXY_VARIABLES:
        remember(os.environ.get(name, ""))
    text = _URL.sub(_masked_url, text)
    text = _PAIR.sub(rf"\1{MASK}", text)
    known = _pattern(frozenset(_secrets), frozenset(_users if users else ()))
    return _without_parts(known.sub(MASK, text) if known else text)


def masked_argument(text: str) -> str:
    """An argument of a command line, whose URL reaches to its end whatever signs its password has."""
    return masked(_URL_TO_THE_END.sub(_masked_url, text))


def holds_secret(text: str, *, pairs: bool = True) -> bool:
    """Whether a text has a URL with a password or a remembered secret; with pairs also a literal after `password:`."""
    known = _pattern(frozenset(_secrets), frozenset())
    urls = any(":" in _split(match[2])[0] for match in _URL.finditer(text))
    named = pairs and any(not match[2].startswith(("$", "'$", '"$')) for match in _PAIR.finditer(text))
    return urls or named or bool(known and known.search(text))


def refuse_secrets(values: Mapping[Any, Any]) -> None:
    """Raise ConfigError for a field that takes its value from the environment, or holds a URL with secret parts.

    values: nested, interpolations unresolved. The fields of a run are written to its folder, its pages and the ledger.
    """
    for name, value in flatten(values).items():
        if _is_written(name):
            for text in _texts(value):
                refuse_secret(name, text)


def refuse_secret(name: str, text: str) -> None:
    """As refuse_secrets, for one text of one field."""
    if _TAKEN.search(text):
        raise ConfigError(
            f"{name} takes its value from the environment or from {STORAGE}: fields of a run are written to its files, "
            f"so they hold no secrets (only {STORAGE} may use oc.env)"
        )
    shown = masked_argument(text)
    if shown != text and _URL.search(text):
        raise ConfigError(
            f"{name}={shown} is a URL with a user, password, query or fragment: fields of a run are written to its "
            "files, so they hold no secrets"
        )


def without_secrets(arguments: Iterable[str]) -> list[str]:
    """The arguments of a command, with the URL of search.storage=URL in an environment variable, for workers too.

    So no list of overrides, pickled job or run.json holds it, and its password needs no quotes of Hydra's grammar.
    Raises ConfigError for a secret in another field, and for a URL that put_storage refuses.
    """
    found = []
    for text in arguments:
        key, equals, value = text.partition("=")
        name = key.lstrip("+~")
        if name == STORAGE and "${" not in value and (url := _unquoted(value)) not in ("", "null"):
            put_storage(url)
            text = STORAGE_FROM_VARIABLE
        elif name.startswith("hydra.") and "${" not in text and masked_argument(text) != text:
            raise ConfigError(
                f"{masked_argument(text)}: Hydra writes its settings to files: name an environment variable instead, "
                f"{name}='${{oc.env:NAME}}'"
            )
        elif equals and _is_written(name):
            refuse_secret(name, value)
        found.append(text)
    return found


def put_storage(url: str) -> None:
    """Remember the URL of a study, and put it into STORAGE_VARIABLE.

    Raises ConfigError for a URL whose password has signs that end it where the user does not mean it.
    """
    remember(url)
    userinfo, _ = _split(url.partition("://")[2])
    if set(userinfo) & set("@/?#") or userinfo.count(":") > 1:
        raise ConfigError(
            f"{STORAGE}={masked_argument(url)}: write @ : / ? # in its password or query as %40 %3A %2F %3F %23, since "
            "as they are they end a part of a URL"
        )
    os.environ[STORAGE_VARIABLE] = url


@contextmanager
def masked_output() -> Iterator[None]:
    """Whatever is printed within goes through `masked`, and so does the traceback of an error that ends the process."""
    sys.excepthook = _print_masked
    with ExitStack() as stack:
        if not isinstance(sys.stdout, _Masking):
            stack.enter_context(redirect_stdout(_Masking(sys.stdout, users=False)))
        if not isinstance(sys.stderr, _Masking):
            stack.enter_context(redirect_stderr(_Masking(sys.stderr, users=True)))
        yield


class MaskedFormatter(logging.Formatter):
    """Formats the lines of a log without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, with the traceback of its error, if it has one."""
        return masked(super().format(record), users=True)


class _Masking:
    """A stream that masks what is written to another one, which does all else."""

    def __init__(self, stream: Any, users: bool) -> None:
        self._stream, self._users = stream, users

    def write(self, text: str) -> int:
        """Write all of the text, masked."""
        self._stream.write(masked(text, users=self._users))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each line, masked."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _print_masked(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    text = "".join(traceback.format_exception(kind, error, trace))
    print(masked(text, users=True), end="", file=sys.stderr)


def _masked_url(match: re.Match[str]) -> str:
    userinfo, rest = _split(match[2])
    if not userinfo and (cut := _CUT.match(rest)):
        userinfo, rest = cut[0], rest[cut.end() :]
    rest, fragment, _ = rest.partition("#")
    path, question, query = rest.partition("?")
    pairs = [f"{name}={MASK}" if equals else MASK for name, equals, _ in (p.partition("=") for p in query.split("&"))]
    return (
        f"{match[1]}{f'{MASK}@' if userinfo else ''}{path}{question}{'&'.join(pairs) if query else ''}"
        f"{f'#{MASK}' if fragment else ''}"
    )


def _split(after: str) -> tuple[str, str]:
    """User and password, and the rest, of what follows ://. They end at the last @, since a raw password may hold any
    sign; a URL without a host, such as sqlite:////me@home/x.db, has none.
    """
    userinfo, at, rest = after.rpartition("@")
    return (userinfo, rest) if at and not after.startswith("/") else ("", after)


def _without_parts(text: str) -> str:
    """The text without what it shares with a remembered key."""
    if not _parts:
        return text
    places = [place for place, letter in enumerate(text) if letter.isalnum()]
    letters = "".join(text[place].casefold()[0] for place in places)
    hidden: list[tuple[int, int]] = []  # from where to where, apart from each other
    for n in range(len(places) - PART + 1):
        if letters[n : n + PART] in _parts:
            begin, end = places[n], places[n + PART - 1] + 1
            if hidden and begin <= hidden[-1][1]:
                begin = hidden.pop()[0]
            hidden.append((begin, end))
    for begin, end in reversed(hidden):
        text = text[:begin] + MASK + text[end:]
    return text


@functools.lru_cache(maxsize=8)
def _pattern(values: frozenset[str], users: frozenset[str]) -> re.Pattern[str] | None:
    """What finds the values as they are and as other formats write them; None without values."""
    forms: set[str] = set()
    for value in values | users:
        for text in {value, unquote(value)}:
            forms |= {text, quote(text), quote(text, safe=""), quote_plus(text), html.escape(text)}
            forms |= {repr(text)[1:-1], json.dumps(text)[1:-1], base64.b64encode(text.encode()).decode().rstrip("=")}
    longest_first = sorted((form for form in forms if len(form) >= SHORTEST), key=lambda form: (-len(form), form))
    # A user and a short value only where they stand alone: the user postgres is no part of postgresql.
    words = {form for form in longest_first if len(form) < 2 * SHORTEST or form in users}
    alone = (rf"(?<![A-Za-z0-9]){re.escape(form)}(?![A-Za-z0-9])" for form in longest_first if form in words)
    anywhere = (re.escape(form) for form in longest_first if form not in words)
    return re.compile("|".join([*anywhere, *alone])) if longest_first else None


def _is_written(name: str) -> bool:
    return name != STORAGE and not name.startswith(OF_HYDRA)


def _texts(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []


def _unquoted(value: str) -> str:
    """The text of a value in Hydra's grammar."""
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1].replace(f"\\{value[0]}", value[0])
    return value
