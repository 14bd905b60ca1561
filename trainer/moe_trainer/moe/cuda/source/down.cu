// Down: rows = W_down a, for every place. Another kernel (combine) weights and adds the rows of each token, so nothing is
// scattered and every sum is added in a fixed order.
#include <fragment.cuh>

using namespace moe;

extern "C" __global__ void __launch_bounds__(kThreads, 1) __cluster_dims__(kCluster, 1, 1)
    down(const __grid_constant__ TensorMap weights,  // (inner, hidden, 1, experts)
         const __grid_constant__ TensorMap a,        // (inner, places, 1, 1)
         const int* offsets, u16* rows, int experts, int hidden, int inner) {
    const auto at = [&](const Tile& tile, int step, int half) {
        return Coordinates{step * kDepth, tile.column * kColumns + half * kColumns / 2, 0, tile.expert};
    };
    const auto epilogue = [&](const Tile& tile, const float(&sums)[128]) {
        const Lane lane;
#pragma unroll
        for (int group = 0; group < kColumns / kGroup; ++group) {
            const int column = tile.column * kColumns + group * kGroup;
            if (column >= hidden) {
                return;
            }
#pragma unroll
            for (int lower = 0; lower < 2; ++lower) {
                Chunk chunk;
#pragma unroll
                for (int block = 0; block < 4; ++block) {
                    const int i = 4 * (4 * group + block) + 2 * lower;
                    chunk.words[block] = pack(sums[i], sums[i + 1]);
                }
                const int place = tile.first + lane.row + 8 * lower;
                store(rows + static_cast<u64>(place) * hidden, column, chunk, lane.quad, place < tile.last);
            }
        }
    };
    const Tiles tiles(offsets, experts, divide_up(hidden, kColumns));
    multiply<false>(tiles, inner / kDepth, Contiguous{a}, weights, at, epilogue);
}
