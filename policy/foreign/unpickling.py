"""A pickle read as data: no name in it is looked up and nothing in it is called.

Python's unpickler imports the names a file gives and calls them, so opening a file runs what the file says. Here
`pickletools` takes the bytes apart, and a small stack machine moves the values. It knows three kinds of names:

    rebuilt   constructors of values (OrderedDict, tensors, numpy numbers), each done by a checked function of ours
    inert     classes of omegaconf, hydra, dill and typing: an `Inert` remembers what the file says, and does nothing
    types     names that stand for themselves, such as torch.FloatStorage, and cannot be called

Any other name is refused, and so is a call of anything that is not a name.
"""

import pickletools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...checkpoints import shown
from ...errors import InputError
from .rebuilt import REBUILD, Build, Damaged, Rebuild, checked_keys

INERT_PACKAGES = ("omegaconf", "hydra", "dill", "typing")
INERT_NAMES = ("collections.defaultdict", "torch.Size", "torch.device")
# Of dill's helpers those that turn text into code or reach into modules: inert here, but no checkpoint has them.
CODE_MAKERS = ("_create_function", "_create_code", "_create_type", "_import_module", "_get_attr", "_eval_repr")
TYPES = tuple(
    f"builtins.{name}" for name in ("bool", "bytes", "dict", "float", "int", "list", "object", "str", "tuple")
)
RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # modules as Python 2 and protocol 2 call them

INTEGERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"}
TEXT = {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
PUSHES_ARGUMENT = INTEGERS | TEXT | BYTES | {"FLOAT", "BINFLOAT"}
PUSHES_NEW: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class Name:
    """A global that the file names, as "module.attribute"; what it names is never touched."""

    text: str


@dataclass(eq=False, repr=False)
class Inert:
    """An object of a class that is not here: what the file says of it."""

    name: str
    arguments: tuple = ()
    state: Any = None
    items: list = field(default_factory=list)


def unpickle(
    data: bytes,
    what: str,
    *,
    rebuild: Mapping[str, Rebuild] | None = None,
    build: Mapping[type, Build] | None = None,
    types: tuple[str, ...] = (),
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """The value that a pickle describes.

    what        the file, for messages
    rebuild     functions of ours in the place of the names they are keyed by
    build       what a state that follows a rebuilt value does to it, by its type
    types       further names that stand for themselves
    persistent  turns a persistent id into a value

    Raises InputError for a damaged pickle and for every name that is none of these.
    """
    machine = _Machine(what, {**REBUILD, **(rebuild or {})}, build or {}, (*TYPES, *types), persistent)
    try:
        return machine.run(data)
    except (Damaged, ValueError, TypeError, IndexError, KeyError, OverflowError, MemoryError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"{what} holds a damaged pickle ({reason}): copy the file again") from None


class _Machine:
    def __init__(
        self,
        what: str,
        rebuild: Mapping[str, Rebuild],
        build: Mapping[type, Build],
        types: tuple[str, ...],
        persistent: Callable[[Any], Any] | None,
    ) -> None:
        self.what, self.rebuild, self.build, self.types, self.persistent = what, rebuild, build, types, persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []  # heights of the stack
        self.memo: dict[int, Any] = {}
        self.ended = False

    def run(self, data: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(data):
            self._step(opcode.name, argument)
        if not self.ended or self.marks or len(self.stack) != 1:
            raise Damaged("it does not end with one value")
        return self.stack[0]

    def _step(self, name: str, argument: Any) -> None:
        if name in PUSHES_ARGUMENT:
            self.stack.append(argument)
        elif name in PUSHES_NEW:
            self.stack.append(PUSHES_NEW[name]())
        elif name in TUPLES:
            items = [self._pop() for _ in range(TUPLES[name])]
            self.stack.append(tuple(reversed(items)))
        elif hasattr(self, f"_op_{name.lower()}"):
            getattr(self, f"_op_{name.lower()}")(argument)
        else:
            raise InputError(f"{self.what} uses {name} in its pickle, which no checkpoint needs: it is not read")

    # -- the stack ------------------------------------------------------------------------------------------------

    def _pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise Damaged("a value is missing")
        return self.stack.pop()

    def _pop_mark(self) -> list[Any]:
        if not self.marks:
            raise Damaged("a mark is missing")
        first = self.marks.pop()
        items = self.stack[first:]
        del self.stack[first:]
        return items

    def _top(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise Damaged("a value is missing")
        return self.stack[-1]

    def _op_proto(self, version: int) -> None:
        if version > 5:
            raise Damaged(f"its protocol is {version}")

    def _op_frame(self, length: int) -> None:
        """A hint for reading in pieces."""

    def _op_stop(self, _: None) -> None:
        self.ended = True

    def _op_mark(self, _: None) -> None:
        self.marks.append(len(self.stack))

    def _op_pop(self, _: None) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self._pop()

    def _op_pop_mark(self, _: None) -> None:
        self._pop_mark()

    def _op_dup(self, _: None) -> None:
        self.stack.append(self._top())

    def _op_put(self, index: int) -> None:
        self.memo[index] = self._top()

    _op_binput = _op_long_binput = _op_put

    def _op_memoize(self, _: None) -> None:
        self.memo[len(self.memo)] = self._top()

    def _op_get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    _op_binget = _op_long_binget = _op_get

    # -- containers -----------------------------------------------------------------------------------------------

    def _op_tuple(self, _: None) -> None:
        self.stack.append(tuple(self._pop_mark()))

    def _op_list(self, _: None) -> None:
        self.stack.append(self._pop_mark())

    def _op_dict(self, _: None) -> None:
        items = self._pop_mark()
        self.stack.append({})
        self._set(items)

    def _op_frozenset(self, _: None) -> None:
        self.stack.append(frozenset(checked_keys(self._pop_mark())))

    def _op_append(self, _: None) -> None:
        self._extend([self._pop()])

    def _op_appends(self, _: None) -> None:
        self._extend(self._pop_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self._top()
        if isinstance(target, Inert):
            target.items.extend(items)
        elif type(target) is list:
            target.extend(items)
        else:
            raise Damaged("it appends to what is no list")

    def _op_setitem(self, _: None) -> None:
        value, key = self._pop(), self._pop()
        self._set([key, value])

    def _op_setitems(self, _: None) -> None:
        self._set(self._pop_mark())

    def _set(self, items: list[Any]) -> None:
        """items: key, value, key, value, ..."""
        if len(items) % 2:
            raise Damaged("a key has no value")
        target, pairs = self._top(), list(zip(items[::2], items[1::2], strict=True))
        if isinstance(target, Inert):
            target.items.extend(pairs)
        elif type(target) in (dict, OrderedDict):
            checked_keys(items[::2])
            target.update(pairs)
        else:
            raise Damaged("it sets an item of what is no mapping")

    def _op_additems(self, _: None) -> None:
        items, target = self._pop_mark(), self._top()
        if type(target) is not set:
            raise Damaged("it adds to what is no set")
        target.update(checked_keys(items))

    # -- names and calls ------------------------------------------------------------------------------------------

    def _op_global(self, text: str) -> None:
        module, _, attribute = text.partition(" ")
        self.stack.append(self._named(module, attribute))

    def _op_stack_global(self, _: None) -> None:
        attribute, module = self._pop(), self._pop()
        if type(module) is not str or type(attribute) is not str:
            raise Damaged("a name is no text")
        self.stack.append(self._named(module, attribute))

    def _named(self, module: str, attribute: str) -> Name:
        text = f"{RENAMED.get(module, module)}.{attribute}"
        if not (text in self.rebuild or text in self.types or _is_inert(text)):
            raise InputError(
                f"{self.what} names {shown(text)} in its pickle, which no checkpoint of a policy needs: nothing of it "
                "was run, and it is not read"
            )
        return Name(text)

    def _op_reduce(self, _: None) -> None:
        arguments, called = self._pop(), self._pop()
        if type(arguments) is not tuple:
            raise Damaged("a call has no arguments")
        self.stack.append(self._called(called, arguments))

    def _called(self, called: Any, arguments: tuple) -> Any:
        if isinstance(called, Name) and called.text in self.rebuild:
            return self.rebuild[called.text](*arguments)
        return self._made(called, arguments)

    def _op_newobj(self, _: None) -> None:
        arguments, made = self._pop(), self._pop()
        self.stack.append(self._made(made, arguments))

    def _op_newobj_ex(self, _: None) -> None:
        keywords, arguments, made = self._pop(), self._pop(), self._pop()
        self.stack.append(self._made(made, (*arguments, keywords)))

    def _made(self, made: Any, arguments: tuple) -> Inert:
        if not isinstance(made, Name):
            what = f"what {shown(made.name)} returned" if isinstance(made, Inert) else f"a {type(made).__name__}"
            raise InputError(f"{self.what} calls {what} in its pickle: nothing of it was run, and it is not read")
        if not _is_inert(made.text):
            raise InputError(
                f"{self.what} calls {shown(made.text)} in its pickle: nothing of it was run, and it is not read"
            )
        return Inert(made.text, tuple(arguments))

    def _op_build(self, _: None) -> None:
        state, target = self._pop(), self._top()
        if isinstance(target, Inert):
            target.state = state
        elif type(target) in self.build:
            self.build[type(target)](target, state)
        elif type(target) is not OrderedDict:  # torch hangs a version number on the state_dict's
            what = target.text if isinstance(target, Name) else type(target).__name__
            raise InputError(
                f"{self.what} changes {shown(what)} in its pickle: nothing of it was run, and it is not read"
            )

    def _op_binpersid(self, _: None) -> None:
        if self.persistent is None:
            raise Damaged("it asks for values that are stored elsewhere")
        self.stack.append(self.persistent(self._pop()))


def _is_inert(text: str) -> bool:
    package, _, rest = text.partition(".")
    if package == "dill" and rest.rpartition(".")[2] in CODE_MAKERS:
        return False
    return text in INERT_NAMES or (package in INERT_PACKAGES and bool(rest))
