// The gradient of the pre-activation, for every place, with its slot's weight s:
//
//     da' = W_down^T dy     ds = sum over inner of a da'     dh = dSwiGLU(s da')     and s a, for dW_down
//
// The sum over the inner width is stored as one part per column tile (`parts`, [column tiles, slots], initially 0). The
// parts are added elsewhere in a fixed order, instead of by atomics in an arbitrary one.
#include <fragment.cuh>

using namespace moe;

// The values that SwiGLU's derivative needs at one element.
struct Gradient {
    float gate, up, product, weighted;
};

__device__ __forceinline__ Gradient differentiate(float gate, float up, float da, float weight) {
    const float share = sigmoid(gate);
    const float silu = gate * share;
    const float scaled = da * weight;
    return {scaled * up * (share + silu * (1.0f - share)), scaled * silu, silu * up * da, silu * up * weight};
}

extern "C" __global__ void __launch_bounds__(kThreads, 1) __cluster_dims__(kCluster, 1, 1)
    d_hidden(const __grid_constant__ TensorMap down,  // (64, hidden, inner / 64, experts)
             const u16* dy, const int* slots, const int* offsets, const float* weights, const u16* h, u16* dh,
             u16* weighted, float* parts, int all, int experts, int hidden, int inner, int active) {
    const auto at = [&](const Tile& tile, int step, int half) {
        constexpr int chunks = kColumns / 64;
        return Coordinates{0, step * kDepth, tile.column * chunks + half * chunks / 2, tile.expert};
    };
    const auto epilogue = [&](const Tile& tile, const float(&sums)[128]) {
        const Lane lane;
#pragma unroll
        for (int lower = 0; lower < 2; ++lower) {
            const int place = tile.first + lane.row + 8 * lower;
            const bool wanted = place < tile.last;
            const int slot = wanted ? slots[place] : 0;
            const float weight = weights[slot];
            const u16* row = h + static_cast<u64>(place) * 2 * inner;
            u16* gradients = dh + static_cast<u64>(place) * 2 * inner;
            float part = 0.0f;
            // Four lanes read a row's 64 bytes; a group is loaded while the one before it is computed.
            const int start = tile.column * kColumns;
            Chunk gates = load(row, start, lane.quad, wanted);
            Chunk ups = load(row, inner + start, lane.quad, wanted);
#pragma unroll
            for (int group = 0; group < kColumns / kGroup; ++group) {
                const int column = start + group * kGroup;
                if (column >= inner) {
                    break;
                }
                const int ahead = column + kGroup;
                const bool more = wanted && group + 1 < kColumns / kGroup && ahead < inner;
                const Chunk next_gates = load(row, ahead, lane.quad, more);
                const Chunk next_ups = load(row, inner + ahead, lane.quad, more);
                transpose(gates, lane.quad);
                transpose(ups, lane.quad);
                Chunk products;
#pragma unroll
                for (int block = 0; block < 4; ++block) {
                    const int i = 4 * (4 * group + block) + 2 * lower;
                    const u32 g = gates.words[block];
                    const u32 u = ups.words[block];
                    const Gradient first = differentiate(low_of(g), low_of(u), sums[i], weight);
                    const Gradient second = differentiate(high_of(g), high_of(u), sums[i + 1], weight);
                    gates.words[block] = pack(first.gate, second.gate);
                    ups.words[block] = pack(first.up, second.up);
                    products.words[block] = pack(first.weighted, second.weighted);
                    part += first.product + second.product;
                }
                store(gradients, column, gates, lane.quad, wanted);
                store(gradients, inner + column, ups, lane.quad, wanted);
                store(weighted + static_cast<u64>(place) * inner, column, products, lane.quad, wanted);
                gates = next_gates;
                ups = next_ups;
            }
            part += float_of(shuffle_xor(bits_of(part), 1));
            part += float_of(shuffle_xor(bits_of(part), 2));
            if (wanted && lane.quad == 0) {
                parts[static_cast<u64>(tile.column) * all + slot] = part;
            }
        }
    };
    const Tiles tiles(offsets, experts, divide_up(inner, kColumns));
    multiply<true>(tiles, hidden / kDepth, Gathered{dy, slots, active, hidden}, down, at, epilogue);
}
