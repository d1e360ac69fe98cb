// A picture of any size to the network's input, as edgeseg's Python does it, for the rule that most networks have:
// OpenCV's INTER_LINEAR_EXACT (whole numbers, the same on every processor), stretched or in a letterbox; and nearest.
#ifndef EDGESEG_FIT_HPP
#define EDGESEG_FIT_HPP

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "edgeseg/manifest.hpp"

namespace edgeseg {

/// uint8 (height, width, channels), RGB where there are three.
struct Picture {
    Size size;
    int channels = 3;
    std::vector<std::uint8_t> pixels;
};

/// A picture as the network takes it, and the part of it that the picture covers after a letterbox.
struct Fitted {
    Picture picture;
    std::optional<Region> region;
};

namespace detail {

/// Two neighbours of an output pixel, and the weight of the second in 256ths.
struct Tap {
    int low, high, weight;
};

inline std::vector<Tap> taps(int n, int out)
{
    const double scale = static_cast<double>(n) / out;
    std::vector<Tap> found(out);
    for (int i = 0; i < out; i++) {
        const double where = (i + 0.5) * scale - 0.5;
        const int whole = static_cast<int>(std::floor(where));
        if (whole < 0 || whole >= n - 1)
            found[i].low = found[i].high = std::min(std::max(whole, 0), n - 1), found[i].weight = 0;
        else
            found[i] = {whole, whole + 1, static_cast<int>(std::nearbyint((where - whole) * 256.0))};
    }
    return found;
}

inline void resize_linear(const Picture &from, Size size, std::uint8_t *out, std::size_t stride)
{
    const std::vector<Tap> rows = taps(from.size.height, size.height), columns = taps(from.size.width, size.width);
    const int channels = from.channels;
    const std::size_t line = static_cast<std::size_t>(from.size.width) * channels, width = static_cast<std::size_t>(size.width) * channels;
    const auto widen = [&](int y, std::vector<std::uint32_t> &into) {
        const std::uint8_t *row = from.pixels.data() + y * line;
        for (int x = 0; x < size.width; x++)
            for (int k = 0; k < channels; k++) {
                const Tap &tap = columns[x];
                into[x * channels + k] = (256 - tap.weight) * row[tap.low * channels + k] + tap.weight * row[tap.high * channels + k];
            }
    };
    std::vector<std::uint32_t> upper(width), lower(width);
    int held[2] = {-1, -1};
    for (int y = 0; y < size.height; y++) {
        const Tap &tap = rows[y];
        if (held[1] == tap.low) std::swap(upper, lower), std::swap(held[0], held[1]);
        if (held[0] != tap.low) widen(tap.low, upper), held[0] = tap.low;
        if (held[1] != tap.high) widen(tap.high, lower), held[1] = tap.high;
        const std::uint32_t weight = tap.weight;
        std::uint8_t *row = out + y * stride;
        for (std::size_t x = 0; x < width; x++)
            row[x] = static_cast<std::uint8_t>(((256 - weight) * upper[x] + weight * lower[x] + (1u << 15)) >> 16);
    }
}

inline void resize_into(const Picture &from, Size size, const std::string &filter, std::uint8_t *out, std::size_t stride)
{
    if (size.height == from.size.height && size.width == from.size.width) {
        const std::size_t line = static_cast<std::size_t>(size.width) * from.channels;
        for (int y = 0; y < size.height; y++) std::copy_n(from.pixels.data() + y * line, line, out + y * stride);
        return;
    }
    if (filter != "linear")
        throw std::runtime_error("the network's pictures are resized by '" + filter + "', this program knows 'linear'; give a picture of its size");
    resize_linear(from, size, out, stride);
}

inline long rounded(double value) { return static_cast<long>(std::nearbyint(value)); }  // half to even, as Python

}  // namespace detail

/// Resize a picture to the network's size by the bundle's rule.
///
/// Throws std::runtime_error where the rule is another than linear, or ``none`` and the sizes differ.
inline Fitted fit_picture(const Picture &picture, Size size, const ResizeRule &rule)
{
    Fitted fitted{{size, picture.channels, std::vector<std::uint8_t>(static_cast<std::size_t>(size.height) * size.width * picture.channels)}, {}};
    const std::size_t stride = static_cast<std::size_t>(size.width) * picture.channels;
    const bool same = picture.size.height == size.height && picture.size.width == size.width;
    if (rule.mode == "none" && !same) throw std::runtime_error("this network takes pictures of its own size only; resize the picture first");
    if (same || rule.mode != "letterbox") {
        detail::resize_into(picture, size, rule.filter, fitted.picture.pixels.data(), stride);
        return fitted;
    }
    const double scale = std::min(static_cast<double>(size.height) / picture.size.height, static_cast<double>(size.width) / picture.size.width);
    const int height = std::min<long>(size.height, std::max(1L, detail::rounded(picture.size.height * scale)));
    const int width = std::min<long>(size.width, std::max(1L, detail::rounded(picture.size.width * scale)));
    const int top = (size.height - height) / 2, left = (size.width - width) / 2;
    for (std::size_t i = 0; i < fitted.picture.pixels.size(); i++)
        fitted.picture.pixels[i] = static_cast<std::uint8_t>(rule.pad_value.at(rule.pad_value.size() == 1 ? 0 : i % picture.channels));
    detail::resize_into(picture, {height, width}, rule.filter, fitted.picture.pixels.data() + top * stride + static_cast<std::size_t>(left) * picture.channels, stride);
    fitted.region = Region{size, static_cast<double>(top), static_cast<double>(left), static_cast<double>(height), static_cast<double>(width)};
    return fitted;
}

}  // namespace edgeseg

#endif
