/* A Triton backend that loads anything and answers nothing, so that hundreds of models start at once and only the
   server's own rules decide. */
#include <stdint.h>

typedef struct Error Error;
typedef struct Request Request;
typedef struct Response Response;

extern Error* TRITONBACKEND_ResponseNew(Response**, Request*);
extern Error* TRITONBACKEND_ResponseSend(Response*, uint32_t, Error*);
extern Error* TRITONBACKEND_RequestRelease(Request*, uint32_t);

Error* TRITONBACKEND_ModelInstanceExecute(void* instance, Request** requests, uint32_t count) {
  (void)instance;
  for (uint32_t index = 0; index < count; ++index) {
    Response* response = 0;
    TRITONBACKEND_ResponseNew(&response, requests[index]);
    TRITONBACKEND_ResponseSend(response, 1, 0);
    TRITONBACKEND_RequestRelease(requests[index], 1);
  }
  return 0;
}
