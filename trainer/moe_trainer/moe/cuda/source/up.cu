// Up: h = [g, u] = W_gate_up x and a = silu(g) * u, for every place.
//
// A tile's 256 columns are 128 of g and the same 128 of u, so that both factors of an element of `a` end up in the same
// thread. `h` or `a` may be null if it is not needed: inference needs no h, recomputation no a.
#include <fragment.cuh>

using namespace moe;

constexpr int kInner = kColumns / 2;

extern "C" __global__ void __launch_bounds__(kThreads, 1) __cluster_dims__(kCluster, 1, 1)
    up(const __grid_constant__ TensorMap gate_up,  // (hidden, inner, 2, experts)
       const u16* x, const int* slots, const int* offsets, u16* h, u16* a, int experts, int hidden, int inner,
       int active) {
    const auto at = [&](const Tile& tile, int step, int half) {
        return Coordinates{step * kDepth, tile.column * kInner, half, tile.expert};
    };
    const auto epilogue = [&](const Tile& tile, const float(&sums)[128]) {
        const Lane lane;
#pragma unroll
        for (int group = 0; group < kInner / kGroup; ++group) {
            const int column = tile.column * kInner + group * kGroup;
            if (column >= inner) {
                return;
            }
#pragma unroll
            for (int lower = 0; lower < 2; ++lower) {
                Chunk gates, ups, products;
#pragma unroll
                for (int block = 0; block < 4; ++block) {
                    const int i = 4 * (4 * group + block) + 2 * lower;
                    const float g0 = sums[i], g1 = sums[i + 1];
                    const float u0 = sums[i + 64], u1 = sums[i + 65];
                    gates.words[block] = pack(g0, g1);
                    ups.words[block] = pack(u0, u1);
                    products.words[block] = pack(g0 * sigmoid(g0) * u0, g1 * sigmoid(g1) * u1);
                }
                const int place = tile.first + lane.row + 8 * lower;
                const bool wanted = place < tile.last;
                if (h != nullptr) {
                    u16* row = h + static_cast<u64>(place) * 2 * inner;
                    store(row, column, gates, lane.quad, wanted);
                    store(row, inner + column, ups, lane.quad, wanted);
                }
                if (a != nullptr) {
                    store(a + static_cast<u64>(place) * inner, column, products, lane.quad, wanted);
                }
            }
        }
    };
    const Tiles tiles(offsets, experts, divide_up(inner, kInner));
    multiply<false>(tiles, hidden / kDepth, Gathered{x, slots, active, hidden}, gate_up, at, epilogue);
}
