#include "runtime/seed/message.h"

#include <doctest/doctest.h>

TEST_CASE("an order to a seed comes back as it was given") {
  const runtime::SeedOrder order{.numbers = {3, 17},
                                 .parts = {{.number = 20, .first_sector = 2048, .sectors = 7}},
                                 .words = {"--uid", "1000", "--", "/usr/bin/qemu", "", "a b"}};

  const runtime::SeedOrder back = runtime::decode_seed_order(runtime::encode_seed_order(order));

  CHECK(back.numbers == order.numbers);
  CHECK(back.parts == order.parts);
  CHECK(back.words == order.words);
}

TEST_CASE("what is no order has no words") {
  using namespace std::string_literals;
  for (const std::string& text : {""s, "3"s, "x\0y\0"s,
                                  "2\0"
                                  "1\0"s,
                                  "-1\0a\0"s, "1\0x\0a\0"s,
                                  "0\0"
                                  "1\0"
                                  "20\0a\0"s,
                                  "1\0"
                                  "3\0"
                                  "0\0a"s})
    CHECK(runtime::decode_seed_order(text).words.empty());
}
