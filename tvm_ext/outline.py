"""Matches become composite functions, which TVM's MergeCompositeFunctions gathers into partitions.

FuseOpsByPattern would do the first step, but it merges equal functions and renames variables: the ONNX origin of an
operator would be lost. Here every composite carries the number of its match.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tvm
from tvm import relax

from tvm_ext.importer import ImportedModule
from tvm_ext.matching import Match
from tvm_ext.parts import CODEGEN
from tvm_ext.relax_values import Values, variables_in
from tvm_ext.whole import host_bindings, onnx_call

MATCH_ATTRIBUTE = "npu_match"


def outline(imported: ImportedModule, values: Values, matches: Sequence[Match]) -> tvm.IRModule:
    """The module with every match in a composite function of its own."""
    builder = relax.BlockBuilder(imported.module)
    by_root = {values.vars[match.root]: index for index, match in enumerate(matches)}
    vanished = {values.vars[variable] for match in matches for variable in match.inside}
    vanished |= _without_readers(values, {*vanished, *by_root})
    main = imported.module["main"]
    bindings: list[relax.VarBinding] = []
    for binding in (binding for block in main.body.blocks for binding in block.bindings):
        if binding.var in vanished:
            continue
        index = by_root.get(binding.var)
        if index is not None:
            function = builder.add_func(_composite(values, matches[index], index), f"{CODEGEN}_op_{index}")
            call = relax.Call(function, [values.vars[variable] for variable in matches[index].inputs])
            binding = relax.VarBinding(binding.var, builder.normalize(call))
        if onnx_call(binding.value) is None:
            bindings.append(binding)
        else:
            host_form = imported.host_forms[imported.sources[binding.var].node.name]
            bindings += host_bindings(builder, binding, host_form)
    builder.update_func(imported.module.get_global_var("main"), _with_bindings(main, bindings))
    return builder.get()


def merge(module: tvm.IRModule) -> tvm.IRModule:
    """Composites gathered into partitions, each a function called ``npu_<k>`` in the order of its call."""
    merged = relax.transform.MergeCompositeFunctions()(module)
    main, bindings = merged["main"], []
    renamed: dict[tvm.ir.GlobalVar, tvm.ir.GlobalVar] = {}
    functions: dict[tvm.ir.GlobalVar, relax.Function] = {}
    for binding in (binding for block in main.body.blocks for binding in block.bindings):
        call = binding.value
        if isinstance(call, tvm.ir.Call) and isinstance(call.op, tvm.ir.GlobalVar):
            variable = renamed.setdefault(call.op, _renamed(call.op, f"{CODEGEN}_{len(renamed)}"))
            functions[variable] = merged[call.op].with_attr("global_symbol", variable.name_hint)
            binding = relax.VarBinding(binding.var, relax.Call(variable, call.args, call.attrs, call.ty_args))
        bindings.append(binding)
    kept = {variable: function for variable, function in merged.functions.items()
            if variable not in renamed and variable.name_hint != "main"}  # fmt: skip
    name = merged.get_global_var("main")
    module = tvm.IRModule({**kept, **functions, name: _with_bindings(main, bindings)}, attrs=merged.attrs)
    return relax.transform.Normalize()(module)


def partitions(module: tvm.IRModule) -> Mapping[str, relax.Function]:
    """The partitions by symbol."""
    return {variable.name_hint: function for variable, function in module.functions.items()
            if isinstance(function, relax.Function) and function.attrs and "Codegen" in function.attrs}  # fmt: skip


def _without_readers(values: Values, gone: set[relax.Var]) -> set[relax.Var]:
    """The tuples of which no item is left."""
    read = {var for variable, expression in values.expressions.items() if values.vars[variable] not in gone
            for var in variables_in(expression)}  # fmt: skip
    result = set(variables_in(values.module.module["main"].body.body))
    return {var for var in values.tuples if var not in read | result}


def _renamed(variable: tvm.ir.GlobalVar, name: str) -> tvm.ir.GlobalVar:
    fresh = tvm.ir.GlobalVar(name)
    relax.expr._update_type(fresh, variable.ty)
    return fresh


def _composite(values: Values, match: Match, index: int) -> relax.Function:
    ty = values.vars[match.root].ty
    result = relax.Var("result", ty)
    bindings = [binding for variable in match.inside for binding in values.definition(variable)]
    *before, last = values.definition(match.root)
    bindings += [*before, relax.VarBinding(result, last.value)]
    body = relax.SeqExpr([relax.DataflowBlock(bindings)], result)
    attributes = {"Composite": f"{CODEGEN}.{match.node.op_type}", "Primitive": True, MATCH_ATTRIBUTE: index}
    parameters = [values.vars[variable] for variable in match.inputs]
    function = relax.Function(parameters, body, ty, attrs=tvm.ir.DictAttrs(attributes))
    return relax.utils.copy_with_new_vars(function)


def _with_bindings(function: relax.Function, bindings: Sequence[relax.VarBinding]) -> relax.Function:
    body = relax.SeqExpr([relax.DataflowBlock(list(bindings))], function.body.body)
    return relax.Function(function.params, body, function.ret_ty, function.is_pure, function.attrs)
