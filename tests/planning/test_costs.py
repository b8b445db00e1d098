"""Operations and traffic: against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import pytest

from mmunlearner_jax.planning.costs import flops, traffic

# Two layers in a loop, each gathering its weights; one kernel overlaps with its gather.
HLO = """
HloModule step

%cond (p: (s32[], bf16[4,8])) -> pred[] {
  %limit = s32[]{:T(128)} constant(2)
  %p = (s32[], bf16[4,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %lt = pred[] compare(%i, %limit), direction=LT
}

%overlapped (a: bf16[2,8]) -> bf16[4,8] {
  %a = bf16[2,8]{1,0} parameter(0)
  ROOT %gather.1 = bf16[4,8]{1,0} all-gather(%a), channel_id=7, dimensions={0}
}

%rest (a: bf16[2,8]) -> bf16[4,8] {
  %a.1 = bf16[2,8]{1,0} parameter(0)
  ROOT %gather.2 = bf16[4,8]{1,0} all-gather(%a.1), channel_id=7, dimensions={0}
}

%body (p: (s32[], bf16[4,8])) -> (s32[], bf16[4,8]) {
  %p.1 = (s32[], bf16[4,8]{1,0}) parameter(0)
  %x = bf16[4,8]{1,0} get-tuple-element(%p.1), index=1
  %first = bf16[4,8]{1,0:S(1)} fusion(%x), kind=kLoop, calls=%overlapped
  %second = bf16[4,8]{1,0} fusion(%first), kind=kLoop, calls=%rest
  %sum = f32[8]{0} all-reduce(%second), channel_id=9, to_apply=%add
  ROOT %t = (s32[], bf16[4,8]{1,0}) tuple(%i, %second)
}

ENTRY %main (x: bf16[4,8]) -> bf16[4,8] {
  %x.1 = bf16[4,8]{1,0} parameter(0)
  %loop = (s32[], bf16[4,8]{1,0}) while(%t.1), condition=%cond, body=%body
  %start = (bf16[4,8]{1,0}, bf16[4,8]{1,0}) collective-permute-start(%x.1), channel_id=11
  %done = bf16[4,8]{1,0} collective-permute-done(%start)
  ROOT %out = f32[4,8]{1,0} add(%done, %done)
}
"""


def test_traffic_of_a_loop_counts_as_often_as_it_runs():
    found = traffic(HLO)
    assert found.collectives == {
        "all-gather": (2, 2 * 4 * 8 * 2),
        "all-reduce": (2, 2 * 8 * 4),
        "collective-permute": (1, 4 * 8 * 2),
    }
    # `second` twice and `out`; `first` stays in the chip's inner memory.
    assert found.stored == 2 * 4 * 8 * 2 + 4 * 8 * 4


# What a loop stacks is written in place: by itself, fused, behind a bitcast, beside another result.
STACKED = """
HloModule stacks

%fused (a: f32[16,4], u: f32[1,4], i: s32[]) -> f32[16,4] {
  %a = f32[16,4]{1,0} parameter(0)
  %u = f32[1,4]{1,0} parameter(1)
  %i = s32[] parameter(2)
  ROOT %dus.1 = f32[16,4]{1,0} dynamic-update-slice(%a, %u, %i, %i)
}

%turned (a: f32[64], u: f32[2], i: s32[]) -> f32[16,4] {
  %a.1 = f32[64]{0} parameter(0)
  %u.1 = f32[2]{0} parameter(1)
  %i.1 = s32[] parameter(2)
  %dus.2 = f32[64]{0} dynamic-update-slice(%a.1, %u.1, %i.1)
  ROOT %bitcast.1 = f32[16,4]{1,0} bitcast(%dus.2)
}

%made (u: f32[1,4], i: s32[]) -> f32[16,4] {
  %u.3 = f32[1,4]{1,0} parameter(0)
  %i.3 = s32[] parameter(1)
  %nothing = f32[16,4]{1,0} broadcast(%i.3)
  ROOT %dus.4 = f32[16,4]{1,0} dynamic-update-slice(%nothing, %u.3, %i.3, %i.3)
}

%two (a: f32[16,4], u: f32[1,4], i: s32[]) -> (f32[8], f32[16,4]) {
  %a.2 = f32[16,4]{1,0} parameter(0)
  %u.2 = f32[1,4]{1,0} parameter(1)
  %i.2 = s32[] parameter(2)
  %other = f32[8]{0} broadcast(%i.2)
  %dus.3 = f32[16,4]{1,0} dynamic-update-slice(%a.2, %u.2, %i.2, %i.2)
  ROOT %both = (f32[8]{0}, f32[16,4]{1,0}) tuple(%other, %dus.3)
}

ENTRY %main (a: f32[16,4], u: f32[1,4], f: f32[2], i: s32[]) -> f32[16,4] {
  %x = f32[16,4]{1,0} parameter(0)
  %y = f32[1,4]{1,0} parameter(1)
  %z = f32[2]{0} parameter(2)
  %n = s32[] parameter(3)
  %alone = f32[16,4]{1,0} dynamic-update-slice(%x, %y, %n, %n)
  %inside = f32[16,4]{1,0} fusion(%alone, %y, %n), kind=kLoop, calls=%fused
  %flat = f32[16,4]{1,0} fusion(%inside, %z, %n), kind=kLoop, calls=%turned
  %new = f32[16,4]{1,0} fusion(%y, %n), kind=kLoop, calls=%made
  %near = f32[16,4]{1,0:S(1)} fusion(%flat, %y, %n), kind=kLoop, calls=%fused
  %pair = (f32[8]{0}, f32[16,4]{1,0}) fusion(%flat, %y, %n), kind=kLoop, calls=%two
  %half = (f32[8]{0}, f32[16,4]{1,0:S(1)}) fusion(%flat, %y, %n), kind=kLoop, calls=%two
  %fetch = (f32[2]{0:S(1)}, f32[2]{0}, u32[]{:S(2)}) copy-start(%z)
  %fetched = f32[2]{0:S(1)} copy-done(%fetch)
  %save = (f32[2]{0}, f32[2]{0:S(1)}, u32[]{:S(2)}) copy-start(%fetched)
  %saved = f32[2]{0} copy-done(%save)
  %buffer = f32[32]{0} custom-call(), custom_call_target="AllocateBuffer"
  ROOT %out = f32[16,4]{1,0} get-tuple-element(%pair), index=1
}
"""


def test_updates_in_place_count_as_what_they_write():
    # `alone`, `inside`, `flat`, all of `new`, both of `pair`, one of `half`, `saved`; what stays in
    # the chip's inner memory, or is fetched there, is not stored.
    assert traffic(STACKED).stored == 4 * (4 + 4 + 2 + 64 + 8 + 4 + 8 + 2)


@pytest.mark.parametrize("layers", [1, 5])
def test_operations_of_a_scan_count_as_often_as_it_runs(layers):
    def forward(weights, x):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0].sum()

    weights, x = jnp.ones((layers, 8, 8)), jnp.ones((4, 8))
    product = 2 * 4 * 8 * 8
    assert flops(jax.make_jaxpr(forward)(weights, x)) == layers * product
    # Backward: one product for the weights, one for the activations.
    assert flops(jax.make_jaxpr(jax.grad(forward))(weights, x)) == 3 * layers * product


def test_operations_of_recomputation_and_of_jitted_functions():
    @jax.jit
    def layer(w, x):
        return jnp.tanh(x @ w)

    def loss(body):
        return jax.value_and_grad(lambda w, x: (body(w, x) @ w).sum())

    w, x = jnp.ones((8, 8)), jnp.ones((4, 8))
    product = 2 * 4 * 8 * 8
    plain = flops(jax.make_jaxpr(loss(layer))(w, x))
    again = flops(jax.make_jaxpr(loss(jax.checkpoint(layer)))(w, x))
    assert plain == 5 * product  # two forward, one and two backward: x needs no gradient
    assert again - plain == product

    def gradient(w, x):
        return loss(layer)(w, x)[1]

    assert flops(jax.make_jaxpr(gradient)(w, x)) == 4 * product  # the loss itself is not used


def test_operations_of_a_convolution():
    x, kernel = jnp.ones((2, 3, 8, 8)), jnp.ones((5, 3, 2, 2))
    jaxpr = jax.make_jaxpr(lambda x, k: jax.lax.conv(x, k, (2, 2), "VALID"))(x, kernel)
    assert flops(jaxpr) == 2 * (2 * 5 * 4 * 4) * (3 * 2 * 2)
