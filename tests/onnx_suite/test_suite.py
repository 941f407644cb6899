"""One case or two of every family of operators in ONNX's own suite, by its own runner, as the installed onnx has them.

`make onnx-suite` runs all of them.
"""

from __future__ import annotations

import unittest
import warnings
from collections.abc import Mapping

import pytest

from tvm_ext.backend import NpuBackend

pytestmark = pytest.mark.slow
NAMES = (
    "abs", "add_bcast", "affine_grid_2d", "and_bcast3v1d", "argmax_default_axis_example", "attention_3d",
    "attention_4d_gqa", "averagepool_2d_pads", "basic_conv_with_padding", "batchnorm_example_training_mode",
    "bitshift_left_uint16", "cast_FLOAT_to_FLOAT16", "center_crop_pad_crop", "clip_default_int8_inbounds",
    "compress_1", "concat_3d_axis_1", "constant", "constantofshape_float_ones", "conv_with_strides_padding",
    "convinteger_with_padding", "convtranspose_dilations", "cos", "cumsum_2d_axis_0", "depthtospace_example",
    "dequantizelinear", "div", "dropout_default_mask", "dynamicquantizelinear", "einsum_batch_diagonal", "elu",
    "equal", "erf", "exp", "expand_dim_changed", "flatten_axis1", "gather_2d_indices", "gathernd_example_float32",
    "gelu_tanh_1", "gemm_all_attributes", "globalaveragepool", "greater", "gridsample",
    "group_normalization_example", "gru_defaults", "hardmax_axis_0", "hardswish", "if", "instancenorm_example",
    "isinf_negative", "layer_normalization_4d_axis2", "leakyrelu", "less_equal", "logsoftmax_axis_1", "lrn",
    "lstm_defaults", "matmul_3d", "matmulinteger", "max_example", "maxpool_2d_pads", "mean_example", "mish",
    "mod_broadcast", "mvn", "nllloss_NCd1", "nonzero_example", "not_2d", "pow_types_float32_int64",
    "prelu_broadcast", "qlinearconv", "qlinearmatmul_2D_uint8_float32", "quantizelinear",
    "range_float_type_positive_delta", "reduce_l2_keep_dims_random", "reduce_sum_negative_axes_keepdims_random",
    "relu", "reshape_extended_dims", "resize_upsample_scales_linear", "rms_normalization_2d_axis0",
    "rotary_embedding", "round", "sce_mean", "scatternd", "selu", "shrink_soft", "sigmoid", "slice",
    "softmax_axis_1", "softplus", "split_equal_parts_2d", "split_to_sequence_nokeepdims", "sqrt", "squeeze", "tanh",
    "top_k", "transpose_all_permutations_3", "tril", "unique_sorted_with_axis", "unsqueeze_axis_1", "where_example",
    "xor3d",
)  # fmt: skip


@pytest.fixture(scope="module")
def cases() -> Mapping[str, type[unittest.TestCase]]:
    """Making the suite's data takes ten seconds, and some of them divide by zero."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test import BackendTest

        found: Mapping[str, type[unittest.TestCase]] = BackendTest(NpuBackend, __name__).test_cases
        return found


@pytest.mark.parametrize("name", NAMES)
def test_case(cases: Mapping[str, type[unittest.TestCase]], name: str) -> None:
    case = cases["OnnxBackendNodeModelTest"](f"test_{name}_cpu")
    with warnings.catch_warnings():
        # TVM's own.
        warnings.simplefilter("ignore")
        try:
            getattr(case, f"test_{name}_cpu")()
        except unittest.SkipTest as reason:
            pytest.fail(f"skipped: {reason}")
