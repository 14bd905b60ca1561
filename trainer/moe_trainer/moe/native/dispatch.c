/* The slots of a batch ordered by in-layer expert, a counting sort, for there are few of them; and their tokens' rows. */

#include <stdint.h>
#include <string.h>

/* Rows that are asked for ahead of the one that is copied, and the numbers that one request brings. */
enum { AHEAD = 4, BROUGHT = 16 };

/* Numbers of in-layer experts are 0 to `experts`, which stands for a slot that was dropped. `offsets` has room for
   experts + 2 numbers, all 0; its last is used up. */
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

/* The rows of x of the tokens that slots belong to. */
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
