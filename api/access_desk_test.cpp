#include "api/access_desk.h"

#include <thread>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

namespace {

using api::AccessDesk;
using api::TaskAccess;
using base::ErrorCode;
using nlohmann::json;

/// What the command sends.
base::Result<api::HttpReply> answer(AccessDesk& desk, const json& body) {
  api::HttpRequest request;
  request.body = body.dump();
  return desk.route().handler(request);
}

json access_with(const std::string& password) {
  return {{"credentials", {{"reg.example", {{"username", "ann"}, {"password", password}}}}}};
}

TEST_CASE("a task asks for the access to a registry once, when it needs it") {
  AccessDesk desk;
  image::registry::Cancel cancel;
  std::vector<json> told;
  const auto access = TaskAccess::create(
                          desk, "ask",
                          [&](const json& line) {
                            told.push_back(line);
                            CHECK(answer(desk, {{"question", line.at("question")},
                                                {"access", access_with("s3cret")}}));
                          },
                          cancel)
                          .value();
  CHECK(told.empty());

  CHECK(access->for_image("reg.example/a:1").value().credentials.at("reg.example").password ==
        "s3cret");
  CHECK(access->for_image("reg.example/b:1"));

  REQUIRE(told.size() == 1);
  CHECK(told[0].at("type") == "access");
  CHECK(told[0].at("reference") == "reg.example/a:1");
  CHECK(told[0].dump().find("s3cret") == std::string::npos);
}

TEST_CASE("access that came with the request is used, and nobody is asked") {
  AccessDesk desk;
  image::registry::Cancel cancel;
  const auto nobody = [](const json&) { FAIL("asked"); };

  const auto given = TaskAccess::create(desk, access_with("s3cret"), nobody, cancel).value();
  const auto none = TaskAccess::create(desk, json(), nobody, cancel).value();

  CHECK(given->for_image("x/y").value().credentials.size() == 1);
  CHECK(none->for_image("x/y").value().credentials.empty());
  CHECK_FALSE(TaskAccess::create(desk, {{"scheme", "gopher"}}, nobody, cancel));
}

TEST_CASE("whoever cannot give access says why, and silence ends at its deadline") {
  AccessDesk desk;
  image::registry::Cancel cancel;
  const auto refusing = [&](const json& line) {
    (void)answer(desk, {{"question", line.at("question")}, {"problem", "the helper is gone"}});
  };
  const auto refused = desk.ask("reg.example/a", refusing, cancel);
  CHECK(refused.error().to_string().find("the helper is gone") != std::string::npos);

  const auto silent = [](const json&) {};
  CHECK(desk.ask("reg.example/a", silent, cancel, 20).error().code() == ErrorCode::Timeout);

  const auto cancelling = [&](const json&) { cancel.cancel(); };
  CHECK(desk.ask("reg.example/a", cancelling, cancel).error().code() == ErrorCode::Cancelled);
}

TEST_CASE("an answer to no question is refused, and one that is wrong keeps the question open") {
  AccessDesk desk;
  image::registry::Cancel cancel;
  CHECK(answer(desk, {{"question", "x"}, {"access", json::object()}}).error().code() ==
        ErrorCode::NotFound);
  const auto careless = [&](const json& line) {
    CHECK_FALSE(answer(desk, {{"question", line.at("question")}}));
    CHECK(answer(desk, {{"question", line.at("question")}, {"access", json::object()}}));
  };
  CHECK(desk.ask("reg.example/a", careless, cancel));
}

}  // namespace
