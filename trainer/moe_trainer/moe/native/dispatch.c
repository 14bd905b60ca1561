/* Orders the slots of a batch by in-layer expert with a counting sort, since there are few experts; gathers their rows. */

#include <stdint.h>
#include <string.h>

/* How many rows ahead of the one being copied are prefetched, and how many numbers one prefetch loads. */
enum { AHEAD = 4, BROUGHT = 16 };

/* In-layer experts are numbered from 0; the number `experts` marks a slot that was dropped. `offsets` has room for
   experts + 2 numbers, all 0 at first; the last one is scratch space. */
void order_slots(const int64_t *chosen, int64_t count, int64_t experts, int32_t *slots, int32_t *places,
                 int32_t *offsets) {
    for (int64_t slot = 0; slot < count; slot++) offsets[chosen[slot] + 1]++;
    for (int64_t e = 0; e <= experts; e++) offsets[e + 1] += offsets[e];
    for (int64_t slot = 0; slot < count; slot++) {
        const int32_t place = offsets[chosen[slot]]++;
        places[slot] = place;
        slots[place] = (int32_t)slot;
    }
    for (int64_t e = experts; e > 0; e--) offsets[e] = offsets[e - 1];
    offsets[0] = 0;
}

/* Copies the rows of x that the slots' tokens have. */
void gather_rows(const float *x, const int32_t *slots, float *restrict rows, int64_t count, int64_t hidden,
                 int64_t active) {
    const int32_t each = (int32_t)active;
    for (int64_t row = 0; row < count; row++) {
        if (row + AHEAD < count) {
            const float *next = x + slots[row + AHEAD] / each * hidden;
            for (int64_t i = 0; i < hidden; i += BROUGHT) __builtin_prefetch(next + i);
        }
        memcpy(rows + row * hidden, x + slots[row] / each * hidden, (size_t)hidden * sizeof(float));
    }
}
