"""Pages in a browser: may they ask, and may they read the answer?"""

PAGE = "https://chat.example.org"
ASK = {"model": "code", "prompt": "x"}
QUESTION = {
    "Origin": PAGE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization, content-type, x-stainless-lang, b@d",
}


async def _may(gateway, headers, path="/v1/chat/completions"):
    async with gateway.client.options(gateway.url + path, headers=headers) as response:
        return response.status, response.headers


async def test_without_allowed_origins_there_is_nothing_for_browsers(world):
    gateway = await world.gateway(world.policy(await world.expert("code")))
    assert (await _may(gateway, QUESTION))[0] == 404
    _, headers, _ = await gateway.answer("/v1/completions", ASK, headers={"Origin": PAGE})
    assert not {"Access-Control-Allow-Origin", "Vary"} & set(headers)


async def test_a_page_of_an_allowed_origin_may_ask_without_a_key_and_reads_every_answer(world, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("sesame\n")
    policy = world.policy(await world.expert("code"), allowed_origins=(PAGE, "http://localhost:3000"))
    gateway = await world.gateway(policy, keys=keys)

    status, headers = await _may(gateway, QUESTION)

    assert status == 204
    assert headers["Access-Control-Allow-Origin"] == PAGE
    assert headers["Access-Control-Allow-Methods"] == "GET, POST"
    assert headers["Access-Control-Allow-Headers"] == "authorization, content-type, x-stainless-lang"
    assert "Origin" in headers["Vary"]
    for key, expected in (("sesame", 200), ("wrong", 401)):
        for stream in (False, True):
            sent = {"Origin": PAGE, "Authorization": f"Bearer {key}"}
            async with gateway.post("/v1/completions", ASK | {"stream": stream}, headers=sent) as response:
                assert response.status == expected
                assert response.headers["Access-Control-Allow-Origin"] == PAGE
                assert "x-moe-expert" in response.headers["Access-Control-Expose-Headers"]


async def test_a_page_of_another_origin_may_not(world):
    policy = world.policy(await world.expert("code"), allowed_origins=(PAGE,))
    gateway = await world.gateway(policy)
    assert (await _may(gateway, QUESTION | {"Origin": "https://evil.example.org"}))[0] == 404
    _, headers, _ = await gateway.answer("/v1/completions", ASK, headers={"Origin": PAGE + ".evil.org"})
    assert "Access-Control-Allow-Origin" not in headers
    assert headers["Vary"] == "Origin"


async def test_all_origins_can_be_allowed(world):
    gateway = await world.gateway(world.policy(await world.expert("code"), allowed_origins=("*",)))
    status, headers = await _may(gateway, QUESTION)
    assert (status, headers["Access-Control-Allow-Origin"]) == (204, "*")


async def test_one_model_can_be_asked_for_by_its_name(world):
    gateway = await world.gateway(world.policy(await world.expert("code")))
    listed = (await gateway.get("/v1/models"))["data"]
    for model in listed:
        assert await gateway.get("/v1/models/" + model["id"]) == model
    async with gateway.client.get(gateway.url + "/v1/models/gpt-4") as response:
        assert response.status == 404
        assert (await response.json())["error"]["code"] == "model_not_found"
