"""ONNX's If as a choice between values: both branches are computed, for partitioning knows no control flow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import tvm
import tvm_ffi
from tvm import relax

from npu_backend.errors import UnsupportedError


@dataclass
class BranchInliner:
    """Makes ``where`` of every ``If`` of a module's ``main``.

    `owners`: each variable that was inside a branch, with the outermost If's own variable.
    """

    module: tvm.IRModule
    owners: dict[relax.Var, relax.Var] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._builder = relax.BlockBuilder(self.module)

    def run(self) -> tvm.IRModule:
        """The module, as it was where it has no If.

        Raises UnsupportedError where the branches give tensors of different shapes or types.
        """
        main = self.module["main"]
        found = _bindings(main.body)
        if not any(isinstance(binding.value, relax.If) for binding in found):
            return self.module
        bindings = [made for binding in found for made in self._inlined(binding)]
        body = relax.SeqExpr([relax.DataflowBlock(bindings)], main.body.body)
        changed = relax.Function(main.params, body, main.ret_ty, main.is_pure, main.attrs)
        self._builder.update_func(self.module.get_global_var("main"), changed)
        return self._builder.get()

    def _inlined(self, binding: relax.VarBinding, owner: relax.Var | None = None) -> Iterator[relax.VarBinding]:
        if owner is not None:
            self.owners[binding.var] = owner
        branch = binding.value
        if not isinstance(branch, relax.If):
            yield binding
            return
        outermost = owner or binding.var
        for inner in (*_bindings(branch.true_branch), *_bindings(branch.false_branch)):
            yield from self._inlined(inner, outermost)
        yield from self._choice(binding, branch, outermost)

    def _choice(self, binding: relax.VarBinding, branch: relax.If, owner: relax.Var) -> Iterator[relax.VarBinding]:
        left, right = branch.true_branch.body, branch.false_branch.body
        if not isinstance(binding.var.ty, relax.TupleType):
            yield relax.VarBinding(binding.var, self._where(branch.cond, left, right))
            return
        chosen = []
        for index in range(len(binding.var.ty.fields)):
            value = self._where(branch.cond, _item(left, index), _item(right, index))
            variable = relax.Var(f"{binding.var.name}_{index}", value.ty)
            self.owners[variable] = owner
            chosen.append(variable)
            yield relax.VarBinding(variable, value)
        yield relax.VarBinding(binding.var, self._builder.normalize(relax.Tuple(chosen)))

    def _where(self, condition: relax.Expr, left: relax.Expr, right: relax.Expr) -> relax.Expr:
        if not tvm_ffi.structural_equal(left.ty, right.ty):
            raise UnsupportedError(f"If: one branch gives {left.ty}, the other {right.ty}; export the model with the"
                                   " same shape from both")  # fmt: skip
        return self._builder.normalize(relax.op.where(condition, left, right))


def _bindings(sequence: relax.SeqExpr) -> Sequence[relax.VarBinding]:
    return [binding for block in sequence.blocks for binding in block.bindings]


def _item(body: relax.Expr, index: int) -> relax.Expr:
    return body.fields[index] if isinstance(body, relax.Tuple) else relax.TupleGetItem(body, index)
