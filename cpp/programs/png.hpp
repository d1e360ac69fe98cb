// PNG files in and out, by libpng.
#ifndef EDGESEG_PROGRAMS_PNG_HPP
#define EDGESEG_PROGRAMS_PNG_HPP

#include <csetjmp>
#include <cstdio>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <png.h>

#include "edgeseg/fit.hpp"

namespace edgeseg {

namespace detail {

struct Close {
    void operator()(std::FILE *file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, Close>;

inline void png_failed(png_structp png, png_const_charp said)
{
    *static_cast<std::string *>(png_get_error_ptr(png)) = said;
    png_longjmp(png, 1);
}

inline void png_warned(png_structp, png_const_charp) {}

}  // namespace detail

/// Read a PNG of 8 bits without transparency as RGB. Throws std::runtime_error for any other file.
inline Picture read_png(const std::string &path)
{
    detail::File file(std::fopen(path.c_str(), "rb"));
    if (!file) throw std::runtime_error("'" + path + "' cannot be opened; give a PNG file");
    std::string said;
    Picture picture;
    std::vector<png_bytep> rows;
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &said, detail::png_failed, detail::png_warned);
    png_infop info = png_create_info_struct(png);
    if (setjmp(png_jmpbuf(png))) {
        png_destroy_read_struct(&png, &info, nullptr);
        throw std::runtime_error("'" + path + "' cannot be read as a PNG: " + said);
    }
    png_init_io(png, file.get());
    png_read_info(png, info);
    if (png_get_bit_depth(png, info) > 8) png_error(png, "it has 16 bits, expected 8; convert it first");
    if (png_get_color_type(png, info) & PNG_COLOR_MASK_ALPHA || png_get_valid(png, info, PNG_INFO_tRNS))
        png_error(png, "it has transparency; remove it first");
    png_set_palette_to_rgb(png);
    png_set_expand_gray_1_2_4_to_8(png);
    if (!(png_get_color_type(png, info) & PNG_COLOR_MASK_COLOR)) png_set_gray_to_rgb(png);
    png_set_interlace_handling(png);
    png_read_update_info(png, info);
    picture.size = {static_cast<int>(png_get_image_height(png, info)), static_cast<int>(png_get_image_width(png, info))};
    picture.pixels.resize(static_cast<std::size_t>(picture.size.height) * picture.size.width * 3);
    rows.resize(picture.size.height);
    for (int y = 0; y < picture.size.height; y++) rows[y] = picture.pixels.data() + static_cast<std::size_t>(y) * picture.size.width * 3;
    png_read_image(png, rows.data());
    png_read_end(png, nullptr);
    png_destroy_read_struct(&png, &info, nullptr);
    return picture;
}

/// Write labels as a grey PNG of 8 bits, or of 16 for std::uint16_t. Nothing half-written is left.
template <typename Label>
void write_png(const std::string &path, const std::vector<Label> &labels, Size size)
{
    const std::string partial = path + ".partial";
    detail::File file(std::fopen(partial.c_str(), "wb"));
    if (!file) throw std::runtime_error("'" + path + "' cannot be written; give a file in a folder of yours");
    std::string said;
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &said, detail::png_failed, detail::png_warned);
    png_infop info = png_create_info_struct(png);
    if (setjmp(png_jmpbuf(png))) {
        png_destroy_write_struct(&png, &info);
        file.reset();
        std::remove(partial.c_str());
        throw std::runtime_error("'" + path + "' cannot be written: " + said);
    }
    png_init_io(png, file.get());
    png_set_IHDR(png, info, size.width, size.height, 8 * sizeof(Label), PNG_COLOR_TYPE_GRAY, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    const std::uint16_t one = 1;
    if (sizeof(Label) == 2 && *reinterpret_cast<const std::uint8_t *>(&one) == 1) png_set_swap(png);
    for (int y = 0; y < size.height; y++)
        png_write_row(png, reinterpret_cast<png_const_bytep>(labels.data() + static_cast<std::size_t>(y) * size.width));
    png_write_end(png, nullptr);
    png_destroy_write_struct(&png, &info);
    if (std::fclose(file.release()) != 0 || std::rename(partial.c_str(), path.c_str()) != 0) {
        std::remove(partial.c_str());
        throw std::runtime_error("'" + path + "' cannot be written; is the disk full?");
    }
}

}  // namespace edgeseg

#endif
