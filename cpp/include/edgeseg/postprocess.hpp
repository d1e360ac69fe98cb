// Logits to labels, exactly as edgeseg's Python does: bilinear resize, argmax, the lowest class winning ties.
//
// Header only, C++17, no dependency. Classes that a corner's winner beats at all four corners of a cell cannot win
// inside it, so only cells whose corners disagree are interpolated, and there only the classes that may win
// (edgeseg/postprocess/sparse.py says more). edgeseg's Python runs this very file where it is compiled.
#ifndef EDGESEG_POSTPROCESS_HPP
#define EDGESEG_POSTPROCESS_HPP

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

// Every product and every sum is rounded on its own: a fused multiply-add gives other labels.
#if defined(__FAST_MATH__)
#error "edgeseg/postprocess.hpp needs IEEE arithmetic; compile without -ffast-math"
#endif
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC push_options
#pragma GCC optimize("fp-contract=off")
#elif defined(_MSC_VER)
#pragma fp_contract(off)
#endif

namespace edgeseg {

/// Height x width, in pixels.
struct Size {
    int height = 0, width = 0;
};

/// The part of the network's input that the picture covers after a letterbox, in pixels of the input.
struct Region {
    Size net;
    double top = 0, left = 0, height = 0, width = 0;
};

/// How logits become labels, as the manifest says it.
struct Postprocess {
    bool align_corners = false;
    /// With one class: label 1 where the resized logit is above it.
    float threshold = 0.0f;
};

/// The network's output for one picture: float32 (classes, height, width), not owned.
struct Logits {
    const float *data = nullptr;
    int classes = 0, height = 0, width = 0;
};

namespace detail {

/// Output pixel i of an axis is ``(1 - t[i]) * in[low[i]] + t[i] * in[high[i]]``.
struct Axis {
    std::vector<int> low, high;
    std::vector<float> t;
};

struct Span {
    int net;
    double start, length;
};

inline double position(int at, int n, int out, bool align_corners, const Span *span)
{
    double step = at;
    if (span != nullptr) {
        step = span->start + (step + 0.5) * span->length / out - 0.5;
        out = span->net;
    }
    if (align_corners) return out > 1 ? step * (static_cast<double>(n - 1) / (out - 1)) : 0.0;
    return (step + 0.5) * (static_cast<double>(n) / out) - 0.5;
}

inline Axis make_axis(int n, int out, bool align_corners, const Span *span)
{
    Axis axis;
    axis.low.resize(out), axis.high.resize(out), axis.t.resize(out);
    for (int i = 0; i < out; i++) {
        const double where = position(i, n, out, align_corners, span);
        const double whole = std::floor(std::min(std::max(where, -1.0), static_cast<double>(n)));
        axis.low[i] = static_cast<int>(std::min(std::max(whole, 0.0), n - 1.0));
        axis.high[i] = static_cast<int>(std::min(std::max(whole + 1, 0.0), n - 1.0));
        axis.t[i] = axis.low[i] == axis.high[i] ? 0.0f : static_cast<float>(where - whole);
        if (axis.t[i] == 0.0f) axis.high[i] = axis.low[i];  // a neighbour of weight zero decides nothing
    }
    return axis;
}

constexpr int longest_run = 64;  // pixels handled as one cell, so that huge strides keep memory bounded

/// Output pixels of an axis between the same two inputs.
struct Run {
    int low, high, first, count;
};

inline std::vector<Run> runs_of(const Axis &axis)
{
    std::vector<Run> runs;
    for (int i = 0; i < static_cast<int>(axis.low.size()); i++) {
        if (!runs.empty() && runs.back().low == axis.low[i] && runs.back().high == axis.high[i] && runs.back().count < longest_run)
            runs.back().count++;
        else
            runs.push_back({axis.low[i], axis.high[i], i, 1});
    }
    return runs;
}

/// The argmax over the classes at one row of logits, the lowest winning ties.
template <typename Label>
void coarse_argmax(const Logits &field, int y, Label *out)
{
    constexpr int block = 2048;  // stays in the first cache
    const std::size_t plane = static_cast<std::size_t>(field.height) * field.width;
    float best[block];
    std::int32_t winner[block];
    for (int start = 0; start < field.width; start += block) {
        const int count = std::min(block, field.width - start);
        const float *values = field.data + static_cast<std::size_t>(y) * field.width + start;
        std::copy_n(values, count, best);
        std::fill_n(winner, count, 0);
        for (std::int32_t label = 1; label < field.classes; label++) {
            values += plane;
            for (int x = 0; x < count; x++) {
                const float kept = values[x] > best[x] ? values[x] : best[x];
                const std::int32_t chosen = values[x] > best[x] ? label : winner[x];
                best[x] = kept;
                winner[x] = chosen;
            }
        }
        for (int x = 0; x < count; x++) out[start + x] = static_cast<Label>(winner[x]);
    }
}

/// What decides some cells between two rows of logits: the values at their corners, (4, classes, cells), the corners'
/// winners, and the classes that may win inside.
struct Cells {
    int most;
    std::vector<float> corners, tops;
    std::vector<int> winners, lost, counts, candidates;

    Cells(int classes, int most_)
        : most(most_), corners(4 * static_cast<std::size_t>(classes) * most_), tops(16 * static_cast<std::size_t>(most_)),
          winners(4 * static_cast<std::size_t>(most_)), lost(most_), counts(most_), candidates(static_cast<std::size_t>(classes) * most_ + 1)
    {
    }

    float *corner(int q, int label, int classes) { return corners.data() + (static_cast<std::size_t>(q) * classes + label) * most; }
    float *top(int q, int other) { return tops.data() + (4 * static_cast<std::size_t>(q) + other) * most; }
};

template <typename Label>
void gather(const Logits &field, const std::vector<Label> &coarse, const Run &row, const std::vector<Run> &columns,
            const int *open, int count, Cells &cells)
{
    const Label *upper = coarse.data() + static_cast<std::size_t>(row.low) * field.width;
    const Label *lower = coarse.data() + static_cast<std::size_t>(row.high) * field.width;
    for (int m = 0; m < count; m++) {
        const Run &run = columns[open[m]];
        const int labels[4] = {upper[run.low], upper[run.high], lower[run.low], lower[run.high]};
        for (int q = 0; q < 4; q++) cells.winners[q * cells.most + m] = labels[q];
    }
    const std::size_t plane = static_cast<std::size_t>(field.height) * field.width;
    for (int label = 0; label < field.classes; label++) {
        const float *above = field.data + label * plane + static_cast<std::size_t>(row.low) * field.width;
        const float *below = field.data + label * plane + static_cast<std::size_t>(row.high) * field.width;
        float *out[4];
        for (int q = 0; q < 4; q++) out[q] = cells.corner(q, label, field.classes);
        for (int m = 0; m < count; m++) {
            const Run &run = columns[open[m]];
            out[0][m] = above[run.low], out[1][m] = above[run.high];
            out[2][m] = below[run.low], out[3][m] = below[run.high];
        }
    }
    for (int q = 0; q < 4; q++)
        for (int corner = 0; corner < 4; corner++)
            for (int m = 0; m < count; m++)
                cells.top(q, corner)[m] = cells.corner(corner, cells.winners[q * cells.most + m], field.classes)[m];
}

/// List the classes of each cell that no corner's winner beats at all four corners; the higher class loses a tie.
inline void find_candidates(int classes, int count, Cells &cells)
{
    std::fill_n(cells.counts.data(), count, 0);
    int *lost = cells.lost.data();
    for (int label = 0; label < classes; label++) {
        const float *now[4];
        for (int q = 0; q < 4; q++) now[q] = cells.corner(q, label, classes);
        std::fill_n(lost, count, 0);
        for (int q = 0; q < 4; q++) {
            const float *top[4];
            for (int corner = 0; corner < 4; corner++) top[corner] = cells.top(q, corner);
            const int *winner = cells.winners.data() + static_cast<std::size_t>(q) * cells.most;
            for (int m = 0; m < count; m++) {
                float lead = top[0][m] - now[0][m];
                for (int corner = 1; corner < 4; corner++) {
                    const float other = top[corner][m] - now[corner][m];
                    lead = other < lead ? other : lead;
                }
                lost[m] |= (lead > 0.0f) | ((lead == 0.0f) & (label > winner[m]));
            }
        }
        for (int m = 0; m < count; m++) {
            cells.candidates[static_cast<std::size_t>(m) * classes + cells.counts[m]] = label;
            cells.counts[m] += 1 - lost[m];
        }
    }
}

/// A class that may win in a cell, as its value varies there: ``(base + ty * down) + tx * (across + ty * twist)``.
struct Candidate {
    std::int32_t label;
    float base, across, down, twist;
};

/// The candidates of cell `m`, with their values at its corners.
inline void collect(int classes, int m, Cells &cells, std::vector<Candidate> &found)
{
    found.clear();
    const int *labels = cells.candidates.data() + static_cast<std::size_t>(m) * classes;
    for (int i = 0; i < cells.counts[m]; i++) {
        const float base = cells.corner(0, labels[i], classes)[m], right = cells.corner(1, labels[i], classes)[m];
        const float down = cells.corner(2, labels[i], classes)[m] - base;
        found.push_back({labels[i], base, right - base, down, (cells.corner(3, labels[i], classes)[m] - right) - down});
    }
}

/// Interpolate a cell's pixels, and keep the lowest class of the largest value at each.
template <typename Label>
void label_cell(const std::vector<Candidate> &candidates, const Run &row, const Run &column, const Axis &rows, const Axis &columns,
                std::size_t width, Label *out)
{
    constexpr int lanes = 8;  // a row is computed in whole lanes, so that the compiler needs no loop for the rest
    float tx[longest_run + lanes] = {}, best[longest_run + lanes], winner[longest_run + lanes];
    std::copy_n(columns.t.data() + column.first, column.count, tx);
    const int count = (column.count + lanes - 1) / lanes * lanes;
    for (int y = row.first; y < row.first + row.count; y++) {
        const float ty = rows.t[y];
        const Candidate &first = candidates.front();
        const float base = first.base + ty * first.down, rise = first.across + ty * first.twist;
        for (int x = 0; x < count; x++) best[x] = base + tx[x] * rise, winner[x] = static_cast<float>(first.label);
        for (std::size_t i = 1; i < candidates.size(); i++) {
            const Candidate &one = candidates[i];
            const float start = one.base + ty * one.down, slope = one.across + ty * one.twist;
            const float label = static_cast<float>(one.label);
            for (int x = 0; x < count; x++) {
                const float value = start + tx[x] * slope;  // both choices before both stores: else it is a branch
                const float kept = value > best[x] ? value : best[x], chosen = value > best[x] ? label : winner[x];
                best[x] = kept;
                winner[x] = chosen;
            }
        }
        Label *line = out + y * width + column.first;
        for (int x = 0; x < column.count; x++) line[x] = static_cast<Label>(winner[x]);
    }
}

/// Label the rows of one run as if all corners agreed; returns the cells where they do not.
template <typename Label>
void label_agreeing(const std::vector<Label> &coarse, int width, const Run &row, const std::vector<Run> &columns,
                    std::size_t stride, Label *out, std::vector<int> &open)
{
    const Label *upper = coarse.data() + static_cast<std::size_t>(row.low) * width;
    const Label *lower = coarse.data() + static_cast<std::size_t>(row.high) * width;
    Label *first = out + row.first * stride;
    open.clear();
    for (int j = 0; j < static_cast<int>(columns.size()); j++) {
        const Run &run = columns[j];
        const Label label = upper[run.low];
        std::fill_n(first + run.first, run.count, label);
        if (upper[run.high] != label || lower[run.low] != label || lower[run.high] != label) open.push_back(j);
    }
    for (int y = 1; y < row.count; y++) std::copy_n(first, stride, first + y * stride);
}

template <typename Label>
void fill_labels(const Logits &field, const Axis &rows, const Axis &columns, Label *out)
{
    const std::vector<Run> down = runs_of(rows), along = runs_of(columns);
    const std::size_t width = columns.low.size();
    std::vector<Label> coarse(static_cast<std::size_t>(field.height) * field.width);
    std::vector<char> known(field.height, 0);  // rows of `coarse`: only those that some output lies between
    Cells cells(field.classes, std::min(std::max((1 << 15) / field.classes, 8), 512));
    std::vector<int> open;
    std::vector<Candidate> candidates;
    for (const Run &row : down) {
        for (const int y : {row.low, row.high}) {
            if (!known[y]) coarse_argmax(field, y, coarse.data() + static_cast<std::size_t>(y) * field.width);
            known[y] = 1;
        }
        label_agreeing(coarse, field.width, row, along, width, out, open);
        for (std::size_t start = 0; start < open.size(); start += cells.most) {
            const int count = static_cast<int>(std::min<std::size_t>(cells.most, open.size() - start));
            gather(field, coarse, row, along, open.data() + start, count, cells);
            find_candidates(field.classes, count, cells);
            for (int m = 0; m < count; m++) {
                collect(field.classes, m, cells, candidates);
                label_cell(candidates, row, along[open[start + m]], rows, columns, width, out);
            }
        }
    }
}

inline void check(const Logits &logits, Size size, const Region *region, int most)
{
    if (logits.data == nullptr || logits.classes < 1 || logits.height < 1 || logits.width < 1)
        throw std::invalid_argument("the logits are empty; expected (classes, height, width), each at least 1");
    if (logits.classes > most)
        throw std::invalid_argument(std::to_string(logits.classes) + " classes do not fit this type of label; at most " + std::to_string(most) + " do");
    if (size.height < 1 || size.width < 1)
        throw std::invalid_argument("labels of " + std::to_string(size.height) + "x" + std::to_string(size.width) + " were asked for; height and width must be at least 1");
    if (region != nullptr && (!(region->height > 0) || !(region->width > 0) || region->net.height < 1 || region->net.width < 1))
        throw std::invalid_argument("the region is empty; its height and width must be above 0");
    const std::size_t count = static_cast<std::size_t>(logits.classes) * logits.height * logits.width;
    bool finite = true;
    for (std::size_t i = 0; i < count; i++) finite &= logits.data[i] - logits.data[i] == 0.0f;
    if (!finite) throw std::invalid_argument("the logits hold NaN or infinity; an fp16 network that overflows does this: use fp32");
}

}  // namespace detail

/// Resize logits bilinearly to `size` and take the argmax, exactly (PyTorch's positions, no antialias).
///
/// Label is std::uint8_t (up to 255 classes) or std::uint16_t (up to 65535). `out` holds height x width labels.
/// `region` cuts the picture out of a letterbox. Throws std::invalid_argument for sizes, classes and regions that
/// cannot be, and for NaN or infinity. No shared state: calls may run side by side.
template <typename Label>
void labels_from_logits(const Logits &logits, Size size, const Postprocess &postprocess, Label *out, const Region *region = nullptr)
{
    detail::check(logits, size, region, sizeof(Label) == 1 ? 255 : 65535);
    detail::Span vertical{}, horizontal{};
    if (region != nullptr) {
        vertical = {region->net.height, region->top, region->height};
        horizontal = {region->net.width, region->left, region->width};
    }
    const bool aligned = postprocess.align_corners;
    const detail::Axis rows = detail::make_axis(logits.height, size.height, aligned, region != nullptr ? &vertical : nullptr);
    const detail::Axis columns = detail::make_axis(logits.width, size.width, aligned, region != nullptr ? &horizontal : nullptr);
    if (logits.classes > 1) return detail::fill_labels(logits, rows, columns, out);
    const std::size_t plane = static_cast<std::size_t>(logits.height) * logits.width;
    std::vector<float> two(2 * plane, postprocess.threshold);  // a constant first class makes an argmax of the threshold
    std::copy_n(logits.data, plane, two.data() + plane);
    detail::fill_labels(Logits{two.data(), 2, logits.height, logits.width}, rows, columns, out);
}

}  // namespace edgeseg

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC pop_options
#endif

#endif
