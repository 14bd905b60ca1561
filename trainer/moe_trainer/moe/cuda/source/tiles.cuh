// Which part of the product a block computes next.
//
// A tile is 128 rows (places of one in-layer expert) by 256 columns. Of all tiles of all experts, in a fixed order, each of
// n blocks takes every n-th. So the host need not know how many rows each expert has: the grid is as large as the device,
// whatever the batch, and a launch can be captured in a graph.
//
// The blocks of a cluster take tiles that are below each other in one expert, since these share the weights. Within an expert
// the order goes down `kTall` cluster tiles before it moves one column on, so that the blocks that run at the same time read
// a part of x and of the weights that stays in the L2 cache.
#pragma once

#include <ptx.cuh>

#ifndef MOE_CLUSTER
#define MOE_CLUSTER 1  // blocks per cluster: 1 or 2
#endif

namespace moe {

constexpr int kCluster = MOE_CLUSTER;
constexpr int kRows = 128;     // rows of a block's tile: 64 for each of two consumer warpgroups
constexpr int kColumns = 256;  // columns of a tile: the most that one wgmma computes
constexpr int kTall = 16;      // cluster tiles that the order goes down before it moves one column on

__device__ __forceinline__ int divide_up(int a, int b) { return (a + b - 1) / b; }
__device__ __forceinline__ int smaller(int a, int b) { return a < b ? a : b; }

struct Tile {
    int expert;
    int first;   // first place
    int last;    // one past the last place of the tile; not above `first` if only the peer's tile has rows
    int column;  // in units of tiles
};

class Tiles {
   public:
    // Expert e owns the places from `offsets[e]` up to `offsets[e + 1]`; `columns` is the number of column tiles.
    __device__ __forceinline__ Tiles(const int* offsets, int experts, int columns)
        : offsets_(offsets), experts_(experts), columns_(columns), next_(block_index() / kCluster) {}

    // Moves on to this block's next tile; returns false if there is none.
    __device__ __forceinline__ bool next(Tile& tile) {
        for (; expert_ < experts_; ++expert_) {
            const int begin = offsets_[expert_];
            const int end = offsets_[expert_ + 1];
            const int high = divide_up(end - begin, kRows * kCluster);
            const int here = next_ - before_;
            if (here < high * columns_) {
                place(tile, here, begin, end, high);
                next_ += blocks_in_grid() / kCluster;
                return true;
            }
            before_ += high * columns_;
        }
        return false;
    }

   private:
    __device__ __forceinline__ void place(Tile& tile, int here, int begin, int end, int high) const {
        const int top = here / (kTall * columns_) * kTall;
        const int height = smaller(kTall, high - top);
        const int inside = here - top * columns_;
        const int row = (top + inside % height) * kCluster + static_cast<int>(rank_in_cluster());
        tile.expert = expert_;
        tile.column = inside / height;
        tile.first = begin + row * kRows;
        tile.last = smaller(tile.first + kRows, end);
    }

    const int* offsets_;
    int experts_;
    int columns_;
    int next_;
    int expert_ = 0;
    int before_ = 0;  // number of tiles of the experts before this one
};

}  // namespace moe
