#pragma once
/// What the daemon and a seed (seed.h) say to each other, over a socket of whole messages.
///
/// To the seed: the words of a launch (launch/confine.h), each ended by a zero byte; before them,
/// in decimal and ended alike, the number each descriptor is to have in the machine, and which of
/// them are parts of the image disk where QEMU itself does not join it. The first descriptor that
/// comes along has no number: over it the child says that it is ready, or why it cannot be, and is
/// told to go. One that is not told ends: no machine begins that the daemon does not know of. Back
/// from the seed comes the process id, in decimal.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace runtime {

/// The one argument of a seed; followed by padding that its machines write their own words over,
/// so that a list of processes shows what each of them runs.
inline constexpr const char* seed_mark = "--seed=";
inline constexpr int seed_socket = 3;
inline constexpr std::string_view seed_child_ready = "ready";
inline constexpr std::string_view seed_child_go = "go";
inline constexpr size_t seed_words_bytes_max = 32u << 10;
inline constexpr size_t seed_descriptors_max = 128;

/// Of the image disk: the content of the descriptor with that number, from its beginning.
struct SeedPart {
  int number = -1;
  uint64_t first_sector = 0;
  uint64_t sectors = 0;
  bool operator==(const SeedPart&) const = default;
};

struct SeedOrder {
  std::vector<int> numbers;
  std::vector<SeedPart> parts;  ///< Sorted by place.
  std::vector<std::string> words;
};

inline constexpr uint64_t seed_sector_bytes = 512;

std::string encode_seed_order(const SeedOrder& order);
/// Empty words if `text` is no order.
SeedOrder decode_seed_order(const std::string& text);

}  // namespace runtime
