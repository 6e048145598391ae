// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#define CURL_DISABLE_TYPECHECK
#include "CCurl.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>

#define FUNCTIONS(X)                                                                                                   \
    X(global_init) X(easy_init) X(easy_reset) X(easy_cleanup) X(easy_strerror) X(easy_setopt) X(easy_getinfo) X(easy_pause) \
    X(slist_append) X(slist_free_all) X(multi_init) X(multi_cleanup) X(multi_add_handle) X(multi_remove_handle)        \
    X(multi_perform) X(multi_poll) X(multi_wakeup) X(multi_info_read)

#undef curl_easy_setopt
#undef curl_easy_getinfo
static struct {
#define FIELD(name) __typeof__(&curl_##name) name;
    FUNCTIONS(FIELD)
} curl;

static const char library[] = "libcurl.so.4";
static pthread_once_t once = PTHREAD_ONCE_INIT;
static char failure[512];

static void load(void) {
    // Local scope: other copies of the TLS functions in this process stay out of its sight, and its own out of theirs.
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        snprintf(failure, sizeof failure, "%s", dlerror());
        return;
    }
#define FIND(name)                                                                                                     \
    *(void **)&curl.name = dlsym(handle, "curl_" #name);                                                               \
    if (curl.name == NULL) {                                                                                           \
        snprintf(failure, sizeof failure, "%s has no function curl_" #name, library);                                  \
        return;                                                                                                        \
    }
    FUNCTIONS(FIND)
    CURLcode code = curl.global_init(CURL_GLOBAL_ALL);
    if (code != CURLE_OK) snprintf(failure, sizeof failure, "%s cannot start: %s", library, curl.easy_strerror(code));
}

const char *hm_curl_load(void) {
    pthread_once(&once, load);
    return failure[0] ? failure : NULL;
}

CURL *hm_easy_init(void) { return curl.easy_init(); }
void hm_easy_reset(CURL *easy) { curl.easy_reset(easy); }
void hm_easy_cleanup(CURL *easy) { curl.easy_cleanup(easy); }
const char *hm_easy_strerror(CURLcode code) { return curl.easy_strerror(code); }
CURLcode hm_easy_set_long(CURL *easy, CURLoption option, long value) { return curl.easy_setopt(easy, option, value); }
CURLcode hm_easy_set_offset(CURL *easy, CURLoption option, curl_off_t value) {
    return curl.easy_setopt(easy, option, value);
}
CURLcode hm_easy_set_string(CURL *easy, CURLoption option, const char *value) {
    return curl.easy_setopt(easy, option, value);
}
CURLcode hm_easy_set_pointer(CURL *easy, CURLoption option, void *value) {
    return curl.easy_setopt(easy, option, value);
}
CURLcode hm_easy_set_blob(CURL *easy, CURLoption option, const void *bytes, size_t count) {
    struct curl_blob blob = {.data = (void *)bytes, .len = count, .flags = CURL_BLOB_COPY};
    return curl.easy_setopt(easy, option, &blob);
}
CURLcode hm_easy_set_list(CURL *easy, CURLoption option, struct curl_slist *value) {
    return curl.easy_setopt(easy, option, value);
}
CURLcode hm_easy_set_io(CURL *easy, CURLoption option, hm_curl_io function) {
    return curl.easy_setopt(easy, option, function);
}
CURLcode hm_easy_set_seek(CURL *easy, hm_curl_seek function) {
    return curl.easy_setopt(easy, CURLOPT_SEEKFUNCTION, function);
}
CURLcode hm_easy_resume(CURL *easy) { return curl.easy_pause(easy, CURLPAUSE_CONT); }
CURLcode hm_easy_get_string(CURL *easy, CURLINFO info, char **value) { return curl.easy_getinfo(easy, info, value); }
CURLcode hm_easy_get_long(CURL *easy, CURLINFO info, long *value) { return curl.easy_getinfo(easy, info, value); }

struct curl_slist *hm_slist_append(struct curl_slist *list, const char *text) {
    return curl.slist_append(list, text);
}
void hm_slist_free(struct curl_slist *list) { curl.slist_free_all(list); }

CURLM *hm_multi_init(void) { return curl.multi_init(); }
void hm_multi_cleanup(CURLM *multi) { curl.multi_cleanup(multi); }
CURLMcode hm_multi_add(CURLM *multi, CURL *easy) { return curl.multi_add_handle(multi, easy); }
CURLMcode hm_multi_remove(CURLM *multi, CURL *easy) { return curl.multi_remove_handle(multi, easy); }
CURLMcode hm_multi_perform(CURLM *multi, int *running) { return curl.multi_perform(multi, running); }
CURLMcode hm_multi_poll(CURLM *multi, int timeout_ms) { return curl.multi_poll(multi, NULL, 0, timeout_ms, NULL); }
CURLMcode hm_multi_wakeup(CURLM *multi) { return curl.multi_wakeup(multi); }
int hm_multi_ended(CURLM *multi, CURLcode *code) {
    int left = 0;
    CURLMsg *message;
    while ((message = curl.multi_info_read(multi, &left)) != NULL) {
        if (message->msg == CURLMSG_DONE) {
            *code = message->data.result;
            return 1;
        }
    }
    return 0;
}
