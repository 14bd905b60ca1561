/* The router's forward and backward pass, each in one pass over the logits; they compute the same as plain_router.py. One
   thread, fp32.

   Tokens are processed sixteen at a time, and their values for one in-layer expert are adjacent in memory. So each
   instruction that sums or compares over a token's in-layer experts does this for sixteen tokens at once. If there are
   fewer tokens than LANES, the logits of the missing ones are 0, and nothing of them is counted or written. */

#include <math.h>

#include "exponential.h"

#define LANES 16
#define EACH_LANE _Pragma("omp simd") for (int lane = 0; lane < LANES; lane++)

typedef float Lanes[LANES];

/* Added to a sum of sigmoids before dividing by it, as in plain_router.py. */
static const float EPSILON = 1e-20f;

/* The score of an in-layer expert that cannot be chosen: below all others, but finite. */
static const float CLOSED = -1e38f;

typedef struct {
    int64_t groups, length, experts, active; /* sequences; tokens per sequence; in-layer experts; those per token */
    int32_t softmax, renormalise;            /* softmax instead of sigmoid; whether a token's weights sum to 1 */
    float scale;
} Router;

static void load(const float *rows, int64_t experts, int tokens, Lanes *found) {
    for (int64_t e = 0; e < experts; e++) {
        for (int lane = 0; lane < tokens; lane++) found[e][lane] = rows[lane * experts + e];
        for (int lane = tokens; lane < LANES; lane++) found[e][lane] = 0;
    }
}

static void store(const Lanes *columns, int64_t experts, int tokens, float *restrict rows) {
    for (int64_t e = 0; e < experts; e++)
        for (int lane = 0; lane < tokens; lane++) rows[lane * experts + e] = columns[e][lane];
}

static void largest(const Lanes *columns, int64_t experts, float *restrict found) {
    EACH_LANE found[lane] = -INFINITY;
    for (int64_t e = 0; e < experts; e++)
        EACH_LANE found[lane] = columns[e][lane] > found[lane] ? columns[e][lane] : found[lane];
}

static void sum(const Lanes *columns, int64_t experts, float *restrict found) {
    EACH_LANE found[lane] = 0;
    for (int64_t e = 0; e < experts; e++) EACH_LANE found[lane] += columns[e][lane];
}

/* e^(logit - shift); exactly 0 where it is negligible compared with the largest. */
static void powers(const Lanes *logits, int64_t experts, const float *shift, Lanes *restrict found) {
    for (int64_t e = 0; e < experts; e++)
        EACH_LANE {
            const float x = logits[e][lane] - shift[lane], power = exponential(x > -86.0f ? x : -86.0f);
            found[e][lane] = x > -86.0f ? power : 0.0f;
        }
}

/* sigmoid(logit); exactly 0 for the very low logits of rows that must not be chosen. */
static void sigmoids(const Lanes *logits, int64_t experts, Lanes *restrict found) {
    for (int64_t e = 0; e < experts; e++)
        EACH_LANE {
            const float open = sigmoid(logits[e][lane]);
            found[e][lane] = logits[e][lane] < -100.0f ? 0.0f : open;
        }
}

/* Finds the places of the largest biased scores, best first; among equal ones, the first place wins. NaN is never chosen,
   and with a bias, a score of 0 counts as CLOSED. `best` is scratch space. */
static void choose(const Lanes *scores, const float *bias, const Router *router, Lanes *restrict best,
                   int32_t (*restrict places)[LANES]) {
    for (int64_t k = 0; k < router->active; k++) EACH_LANE best[k][lane] = -INFINITY, places[k][lane] = 0;
    for (int64_t e = 0; e < router->experts; e++) {
        float score[LANES];
        int32_t place[LANES], better[LANES];
        EACH_LANE {
            const float biased = scores[e][lane] + (bias ? bias[e] : 0.0f);
            score[lane] = bias && scores[e][lane] == 0 ? CLOSED : biased;
            place[lane] = (int32_t)e;
            better[lane] = 0;
        }
        for (int64_t k = 0; k < router->active; k++)
            EACH_LANE { /* once it is better than one, that one and all after it move one place down */
                better[lane] |= score[lane] > best[k][lane];
                const float lower = better[lane] ? best[k][lane] : score[lane];
                const int32_t below = better[lane] ? places[k][lane] : place[lane];
                best[k][lane] = better[lane] ? score[lane] : best[k][lane];
                places[k][lane] = better[lane] ? place[lane] : places[k][lane];
                score[lane] = lower;
                place[lane] = below;
            }
    }
}

static void weigh(const Lanes *scores, const Router *router, int lane, const int64_t *chosen, float *weights) {
    float total = 0;
    for (int64_t k = 0; k < router->active; k++) total += weights[k] = scores[chosen[k]][lane];
    const float factor = router->renormalise ? router->scale / (total + EPSILON) : router->scale;
    for (int64_t k = 0; k < router->active; k++) weights[k] *= factor;
}

/* Adds up what balancing needs for one in-layer expert: its probabilities, and the squares of its logits. */
static void add_up(const float *logits, const float *scores, const float *share, double *mean, double *squares) {
    float probability = 0, square = 0;
#pragma omp simd reduction(+ : probability, square)
    for (int lane = 0; lane < LANES; lane++) {
        probability += scores[lane] * share[lane];
        square += logits[lane] * logits[lane];
    }
    *mean += probability;
    *squares += square;
}

/* Returns the sum of the squares of the logits. `room` is scratch space for (2 * experts + 2 * active) * LANES numbers.
   `counts` and `means` (of the probabilities) have groups * experts numbers each, all 0 at first. */
double route(const float *logits, const float *bias, const Router *router, Lanes *room, int64_t *chosen,
             float *weights, int64_t *counts, double *means, float *logsumexp) {
    const int64_t experts = router->experts, active = router->active;
    Lanes *columns = room, *scores = columns + experts, *best = scores + experts;
    int32_t(*places)[LANES] = (int32_t(*)[LANES])(best + active);
    double squares = 0;
    for (int64_t group = 0; group < router->groups; group++)
        for (int64_t start = 0; start < router->length; start += LANES) {
            const int tokens = router->length - start < LANES ? (int)(router->length - start) : LANES;
            const int64_t first = group * router->length + start;
            Lanes highest, total, share;
            load(logits + first * experts, experts, tokens, columns);
            largest(columns, experts, highest);
            powers(columns, experts, highest, scores);
            sum(scores, experts, total);
            for (int lane = 0; lane < tokens; lane++) logsumexp[first + lane] = logf(total[lane]) + highest[lane];
            if (router->softmax) {
                EACH_LANE share[lane] = 1.0f / total[lane];
                for (int64_t e = 0; e < experts; e++) EACH_LANE scores[e][lane] *= share[lane];
                EACH_LANE share[lane] = lane < tokens ? 1.0f : 0.0f;
            } else {
                sigmoids(columns, experts, scores);
                sum(scores, experts, total);
                EACH_LANE share[lane] = lane < tokens ? 1.0f / (total[lane] + EPSILON) : 0.0f;
            }
            for (int64_t e = 0; e < experts; e++)
                add_up(columns[e], scores[e], share, means + group * experts + e, &squares);
            choose(scores, bias, router, best, places);
            for (int lane = 0; lane < tokens; lane++) {
                int64_t *mine = chosen + (first + lane) * active;
                for (int64_t k = 0; k < active; k++) {
                    mine[k] = places[k][lane];
                    counts[group * experts + mine[k]]++;
                }
                weigh(scores, router, lane, mine, weights + (first + lane) * active);
            }
        }
    return squares;
}

/* Adds to the gradients of a token's chosen scores what its weights contribute. */
static void add_chosen(const Lanes *scores, const Router *router, int lane, const int32_t *chosen,
                       const float *dweights, Lanes *dscores) {
    float total = EPSILON, inner = 0;
    for (int64_t k = 0; k < router->active; k++) total += scores[chosen[k]][lane];
    if (router->renormalise)
        for (int64_t k = 0; k < router->active; k++) inner += dweights[k] * scores[chosen[k]][lane] / total;
    const float factor = router->renormalise ? router->scale / total : router->scale;
    for (int64_t k = 0; k < router->active; k++) dscores[chosen[k]][lane] += factor * (dweights[k] - inner);
}

/* Sets the gradient of the scores to what the mean probabilities of `length` tokens contribute; 0 without `dmeans`. */
static void spread(const float *dmeans, const Lanes *scores, const Router *router, Lanes *restrict dscores) {
    const int64_t experts = router->experts;
    Lanes share, shift;
    EACH_LANE share[lane] = dmeans ? 1.0f / (float)router->length : 0.0f, shift[lane] = 0;
    if (dmeans && !router->softmax) { /* here probabilities are scores divided by their sum */
        Lanes total;
        sum(scores, experts, total);
        for (int64_t e = 0; e < experts; e++) EACH_LANE shift[lane] += dmeans[e] * scores[e][lane];
        EACH_LANE total[lane] += EPSILON, shift[lane] /= total[lane], share[lane] /= total[lane];
    }
    for (int64_t e = 0; e < experts; e++) {
        const float dmean = dmeans ? dmeans[e] : 0;
        EACH_LANE dscores[e][lane] = share[lane] * (dmean - shift[lane]);
    }
}

/* A gradient is NULL if the loss does not depend on that output. `room` is scratch space for 3 * experts * LANES numbers. */
void route_backward(const float *logits, const int32_t *chosen, const float *logsumexp, const float *dweights,
                    const float *dmeans, const float *dlogsumexp, const Router *router, Lanes *room, float *dlogits) {
    const int64_t experts = router->experts, active = router->active;
    Lanes *columns = room, *scores = columns + experts, *dscores = scores + experts;
    for (int64_t group = 0; group < router->groups; group++)
        for (int64_t start = 0; start < router->length; start += LANES) {
            const int tokens = router->length - start < LANES ? (int)(router->length - start) : LANES;
            const int64_t first = group * router->length + start;
            Lanes shift, inner, outer;
            load(logits + first * experts, experts, tokens, columns);
            for (int lane = 0; lane < LANES; lane++) {
                shift[lane] = lane < tokens ? logsumexp[first + lane] : 0;
                outer[lane] = lane < tokens && dlogsumexp ? dlogsumexp[first + lane] : 0;
            }
            if (router->softmax) powers(columns, experts, shift, scores);
            else sigmoids(columns, experts, scores);
            spread(dmeans ? dmeans + group * experts : 0, scores, router, dscores);
            for (int lane = 0; dweights && lane < tokens; lane++)
                add_chosen(scores, router, lane, chosen + (first + lane) * active, dweights + (first + lane) * active,
                           dscores);
            if (router->softmax) {
                EACH_LANE inner[lane] = -outer[lane];
                for (int64_t e = 0; e < experts; e++) EACH_LANE inner[lane] += dscores[e][lane] * scores[e][lane];
                for (int64_t e = 0; e < experts; e++)
                    EACH_LANE dscores[e][lane] = scores[e][lane] * (dscores[e][lane] - inner[lane]);
            } else {
                for (int64_t e = 0; e < experts; e++)
                    EACH_LANE dscores[e][lane] *= scores[e][lane] * (1.0f - scores[e][lane]);
                powers(columns, experts, shift, scores);
                for (int64_t e = 0; e < experts; e++) EACH_LANE dscores[e][lane] += outer[lane] * scores[e][lane];
            }
            store(dscores, experts, tokens, dlogits + first * experts);
        }
}
