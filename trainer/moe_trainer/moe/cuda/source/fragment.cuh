// How the sums of a tile are laid out in the registers of a consumer warpgroup, and how they get to device memory.
//
// Of the warpgroup's 64 rows, wgmma gives lane l of warp w the rows 16 w + l / 4 and 16 w + l / 4 + 8. Of each eight columns
// 8 j .. 8 j + 7, the lane has the two from 8 j + 2 (l % 4) on: sums[4 j] and sums[4 j + 1] for the first row, sums[4 j + 2]
// and sums[4 j + 3] for the second. Four lanes (a quad) share a row. `transpose` rearranges four blocks of eight columns so
// that each lane of the quad has one whole block, 16 bytes of bf16; applied again, it restores the order.
#pragma once

#include <pipeline.cuh>

namespace moe {

constexpr int kGroup = 32;  // columns that are written at once: four blocks of eight

// The rows and columns of this lane.
struct Lane {
    int row;   // in the block's tile, the first of two that are 8 apart
    int quad;  // position in the quad

    __device__ __forceinline__ Lane() {
        const int thread = static_cast<int>(thread_index()) - kWarpgroup;
        row = thread / 32 * 16 + thread % 32 / 4;
        quad = thread % 4;
    }
};

// Before, lane q of a quad has columns 2 q and 2 q + 1 of each block b in word[b]. Afterwards it has all columns of block q,
// with columns 2 i and 2 i + 1 in word[i]. The function is its own inverse. All lanes of a warp must call it.
__device__ __forceinline__ void transpose(Chunk& chunk, int quad) {
    u32(&word)[4] = chunk.words;
    const bool odd = quad & 1;
    const bool upper = quad & 2;
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        const u32 other = shuffle_xor(odd ? word[i] : word[i + 1], 1);
        (odd ? word[i] : word[i + 1]) = other;
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const u32 other = shuffle_xor(upper ? word[i] : word[i + 2], 2);
        (upper ? word[i] : word[i + 2]) = other;
    }
}

// Writes a group of 32 columns of one row of a row-major matrix: 64 bytes per quad.
__device__ __forceinline__ void store(u16* row, int column, Chunk chunk, int quad, bool wanted) {
    transpose(chunk, quad);
    if (wanted) {
        store_chunk(row + column + 8 * quad, chunk);
    }
}

// Reads such a group without transposing it (see `transpose`); zeros if the row is not wanted.
__device__ __forceinline__ Chunk load(const u16* row, int column, int quad, bool wanted) {
    return wanted ? load_chunk(row + column + 8 * quad) : Chunk{};
}

}  // namespace moe
