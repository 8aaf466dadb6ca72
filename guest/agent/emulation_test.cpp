#include "guest/agent/emulation.h"

#include <doctest/doctest.h>

TEST_CASE("programs are recognised by class, byte order and machine of their ELF header") {
  CHECK(agent::emulator_registration("arm64", "/run/emulator") ==
        ":qemu-arm64:M:0:"
        "\\x7f\\x45\\x4c\\x46\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00"
        "\\x02\\x00\\xb7\\x00:"
        "\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff"
        "\\xfe\\xff\\xff\\xff:/run/emulator:POCF");
  CHECK(agent::emulator_registration("s390x", "/e") ==
        ":qemu-s390x:M:0:"
        "\\x7f\\x45\\x4c\\x46\\x02\\x02\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00"
        "\\x00\\x02\\x00\\x16:"
        "\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff"
        "\\xff\\xfe\\xff\\xff:/e:POCF");
  CHECK(agent::emulator_registration("pdp11", "/e") == "");
}
