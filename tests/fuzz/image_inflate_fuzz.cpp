/// Compressed streams of strangers: they end or are refused, whatever pieces they come in, and the
/// pieces make no difference to what comes out.

#include <cstdlib>
#include <string>

#include "image/decompress.h"
#include "tests/fuzz/image_fuzz.h"

namespace {

constexpr size_t output_max = 4u << 20;

struct Outcome {
  std::string bytes;
  bool whole = false;
};

Outcome inflate(std::string_view input, size_t piece) {
  Outcome outcome;
  const auto stream = image::open_decompressor(fuzz::source_of(input, piece));
  if (!stream) return outcome;
  std::string buffer(piece, '\0');
  while (outcome.bytes.size() < output_max) {
    const auto count = (*stream)->read(buffer);
    if (!count) return outcome;
    if (*count > buffer.size()) std::abort();
    if (*count == 0) {
      outcome.whole = true;
      return outcome;
    }
    outcome.bytes.append(buffer, 0, *count);
  }
  return outcome;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input = fuzz::text_of(data, size);
  const Outcome large = inflate(input, 64u << 10);
  const Outcome small = inflate(input, 7);
  if (large.bytes.size() >= output_max || small.bytes.size() >= output_max) return 0;
  if (large.whole != small.whole) std::abort();
  if (large.whole && large.bytes != small.bytes) std::abort();
  return 0;
}
