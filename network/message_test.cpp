#include "network/message.h"

#include <string>

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/process.h"

namespace {

using base::ErrorCode;

struct Ends {
  base::UniqueFd ours;
  base::UniqueFd theirs;

  Ends() {
    int ends[2] = {-1, -1};
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    ours = base::UniqueFd(ends[0]);
    theirs = base::UniqueFd(ends[1]);
  }
  base::Result<network::Message> receive() const {
    return network::receive_message(theirs.get(), base::Deadline::in_ms(1'000));
  }
  void write(const std::string& bytes) const {
    REQUIRE(::send(ours.get(), bytes.data(), bytes.size(), 0) ==
            static_cast<ssize_t>(bytes.size()));
  }
};

bool same_file(int one, int other) {
  struct stat first {};
  struct stat second {};
  REQUIRE(::fstat(one, &first) == 0);
  REQUIRE(::fstat(other, &second) == 0);
  return first.st_ino == second.st_ino && first.st_dev == second.st_dev;
}

}  // namespace

TEST_CASE("a line arrives with the descriptors sent beside it") {
  const Ends ends;
  const auto pipe = base::make_pipe();
  REQUIRE(pipe);
  REQUIRE(network::send_message(ends.ours.get(), "{\"call\":\"lease\"}", {pipe->reader.get()}));

  const auto message = ends.receive();

  REQUIRE(message);
  CHECK(message->text == "{\"call\":\"lease\"}");
  REQUIRE(message->descriptors.size() == 1);
  CHECK(same_file(message->descriptors.front().get(), pipe->reader.get()));
}

TEST_CASE("a line that comes in pieces is complete only at its end") {
  const Ends ends;
  network::Message message;
  ends.write("{\"ca");
  const auto half = network::receive_some(ends.theirs.get(), message);
  ends.write("ll\":1}\n");
  const auto whole = network::receive_some(ends.theirs.get(), message);

  REQUIRE(half);
  CHECK(*half == false);
  REQUIRE(whole);
  CHECK(*whole == true);
  CHECK(message.text == "{\"call\":1}");
}

TEST_CASE("a second line before the first was answered is refused") {
  const Ends ends;
  ends.write("{}\n{}");
  const auto message = ends.receive();
  REQUIRE(!message);
  CHECK(message.error().code() == ErrorCode::InvalidArgument);
}

TEST_CASE("a line longer than the limit is refused while it still grows") {
  const Ends ends;
  network::Message message;
  message.text.assign(network::message_bytes_max, 'x');
  ends.write("x");
  const auto more = network::receive_some(ends.theirs.get(), message);
  REQUIRE(!more);
  CHECK(more.error().code() == ErrorCode::InvalidArgument);
}

TEST_CASE("a sender that hangs up within a line is an error, not an answer") {
  Ends ends;
  ends.write("{\"ok\"");
  ends.ours.reset();
  const auto message = ends.receive();
  REQUIRE(!message);
  CHECK(message.error().code() == ErrorCode::Io);
}

TEST_CASE("a silent sender ends the wait at the deadline") {
  const Ends ends;
  const auto message = network::receive_message(ends.theirs.get(), base::Deadline::in_ms(10));
  REQUIRE(!message);
  CHECK(message.error().code() == ErrorCode::Timeout);
}

TEST_CASE("more descriptors than a message may carry are not sent") {
  const Ends ends;
  const std::vector<int> many(network::message_descriptors_max + 1, ends.theirs.get());
  CHECK(!network::send_message(ends.ours.get(), "{}", many));
}

TEST_CASE("a pipe's line is read to its end, and no further than its writer lives") {
  auto whole = base::make_pipe();
  auto broken = base::make_pipe();
  REQUIRE(whole);
  REQUIRE(broken);
  REQUIRE(::write(whole->writer.get(), "ready\n", 6) == 6);
  REQUIRE(::write(broken->writer.get(), "rea", 3) == 3);
  broken->writer.reset();

  const auto line = network::receive_line(whole->reader.get(), base::Deadline::in_ms(1'000));
  const auto none = network::receive_line(broken->reader.get(), base::Deadline::in_ms(1'000));

  REQUIRE(line);
  CHECK(*line == "ready");
  REQUIRE(!none);
  CHECK(none.error().code() == ErrorCode::Io);
}

TEST_CASE("replies carry text, JSON and errors with their code") {
  const auto text = network::decode_reply(network::encode_success("line \"one\"\n"));
  const auto value = network::decode_reply(network::encode_success_json("{\"mtu\":1500}"));
  const auto failure =
      network::decode_reply(network::encode_failure({ErrorCode::Busy, "port 80 is taken"}));

  REQUIRE(text);
  CHECK(*text == "line \"one\"\n");
  REQUIRE(value);
  CHECK(*value == "{\"mtu\":1500}");
  REQUIRE(!failure);
  CHECK(failure.error().code() == ErrorCode::Busy);
  CHECK(failure.error().to_string() == "port 80 is taken");
}

TEST_CASE("a reply that is none is an error") {
  for (const char* line : {"", "[]", "{}", "{\"error\":\"text\"}", "{\"ok\""}) {
    CAPTURE(line);
    CHECK(!network::decode_reply(line));
  }
}
