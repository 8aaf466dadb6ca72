#include <array>
#include <cstdint>

#include "guest/agent/emulation.h"

namespace agent {
namespace {

/// What the ELF header of an architecture's programs says (elf.h: EI_CLASS, EI_DATA, e_machine).
struct Elf {
  std::string_view architecture;
  bool wide;  ///< 64 bits.
  bool big_endian;
  uint16_t machine;
};
constexpr std::array known = {Elf{"arm64", true, false, 183},   Elf{"arm", false, false, 40},
                              Elf{"riscv64", true, false, 243}, Elf{"ppc64le", true, false, 21},
                              Elf{"s390x", true, true, 22},     Elf{"mips64le", true, false, 8},
                              Elf{"loong64", true, false, 258}};

constexpr size_t compared_bytes = 20;  // up to and with e_machine

std::string escaped(const std::array<uint8_t, compared_bytes>& bytes) {
  std::string text;
  for (const uint8_t byte : bytes) text += fmt::format("\\x{:02x}", byte);
  return text;
}

}  // namespace

std::string emulator_registration(const std::string& architecture, const std::string& interpreter) {
  for (const Elf& elf : known) {
    if (elf.architecture != architecture) continue;
    std::array<uint8_t, compared_bytes> magic = {0x7f, 'E', 'L', 'F'};
    magic[4] = elf.wide ? 2 : 1;
    magic[5] = elf.big_endian ? 2 : 1;
    magic[6] = 1;  // version
    const size_t low = elf.big_endian ? 1 : 0;
    magic[16 + low] = 2;  // ET_EXEC; ET_DYN is 3
    magic[18 + low] = static_cast<uint8_t>(elf.machine);
    magic[19 - low] = static_cast<uint8_t>(elf.machine >> 8);
    std::array<uint8_t, compared_bytes> mask{};
    mask.fill(0xff);
    mask[7] = 0;  // any ABI
    mask[16 + low] = 0xfe;
    // F: opened now, so that it is found from inside of any root. P, O, C: the program's own name,
    // an open descriptor of it, and its set-user-id bits reach the emulator.
    return fmt::format(":qemu-{}:M:0:{}:{}:{}:POCF", architecture, escaped(magic), escaped(mask),
                       interpreter);
  }
  return {};
}

}  // namespace agent
