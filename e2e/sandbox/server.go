package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"text/template"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	fieldManager = "fairlead-sandbox"

	// answerTimeout bounds the wait for a server to answer.
	answerTimeout = 2 * time.Minute
	// answerRetry is how often it is asked meanwhile.
	answerRetry = 250 * time.Millisecond
)

// run applies manifests that run the image. What was not there before is removed
// when the sandbox is closed; what was is somebody else's, and stays.
func (b *Sandbox) run(ctx context.Context, manifests, image string) (*rest.Config, error) {
	access, err := clientcmd.BuildConfigFromFlags("", b.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", b.Kubeconfig, err)
	}
	objects, err := objectsOf(manifests, image)
	if err != nil {
		return nil, fmt.Errorf("read the manifests: %w", err)
	}
	writer, err := newWriter(access)
	if err != nil {
		return nil, err
	}
	var created []*unstructured.Unstructured
	b.closeWith(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		return writer.remove(ctx, created)
	})
	created, err = writer.apply(ctx, objects)
	return access, err
}

// objectsOf are the objects of manifests that run the image.
func objectsOf(manifests, image string) ([]*unstructured.Unstructured, error) {
	parsed, err := template.New("manifests").Parse(manifests)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	if err := parsed.Execute(&text, struct{ Image string }{image}); err != nil {
		return nil, err
	}
	var objects []*unstructured.Unstructured
	for documents := yaml.NewYAMLOrJSONDecoder(&text, 4096); ; {
		object := &unstructured.Unstructured{}
		switch err := documents.Decode(object); {
		case errors.Is(err, io.EOF):
			return objects, nil
		case err != nil:
			return nil, err
		}
		objects = append(objects, object)
	}
}

// awaitOK returns once a GET of url is answered with 200.
func awaitOK(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, answerTimeout, fmt.Errorf("no answer within %s", answerTimeout))
	defer cancel()
	retry := time.NewTicker(answerRetry)
	defer retry.Stop()
	for {
		err := getOK(ctx, url)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w; last: %w", url, context.Cause(ctx), err)
		case <-retry.C:
		}
	}
}

func getOK(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}

// writer applies and removes objects of any kind.
type writer struct {
	client dynamic.Interface
	mapper meta.RESTMapper
}

func newWriter(access *rest.Config) (*writer, error) {
	client, err := dynamic.NewForConfig(access)
	if err != nil {
		return nil, err
	}
	kinds, err := discovery.NewDiscoveryClientForConfig(access)
	if err != nil {
		return nil, err
	}
	resources, err := restmapper.GetAPIGroupResources(kinds)
	if err != nil {
		return nil, fmt.Errorf("discover the cluster's kinds: %w", err)
	}
	return &writer{client, restmapper.NewDiscoveryRESTMapper(resources)}, nil
}

// apply returns those of the objects that were not there, also when it fails.
func (w *writer) apply(ctx context.Context, objects []*unstructured.Unstructured) (created []*unstructured.Unstructured, err error) {
	for _, object := range objects {
		client, err := w.resource(object)
		if err != nil {
			return created, err
		}
		_, err = client.Create(ctx, object, metav1.CreateOptions{FieldManager: fieldManager})
		switch {
		case err == nil:
			created = append(created, object)
		case apierrors.IsAlreadyExists(err):
			_, err = client.Apply(ctx, object.GetName(), object, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
		}
		if err != nil {
			return created, fmt.Errorf("apply %s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
	return created, nil
}

// remove deletes the objects, those in namespaces of ours with these.
func (w *writer) remove(ctx context.Context, objects []*unstructured.Unstructured) error {
	var errs []error
	for _, object := range objects {
		if object.GetNamespace() != "" {
			continue
		}
		client, err := w.resource(object)
		if err == nil {
			err = client.Delete(ctx, object.GetName(), metav1.DeleteOptions{})
		}
		if err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("delete %s %s: %w", object.GetKind(), object.GetName(), err))
		}
	}
	return errors.Join(errs...)
}

func (w *writer) resource(object *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	kind := object.GroupVersionKind()
	mapping, err := w.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return nil, err
	}
	if namespace := object.GetNamespace(); namespace != "" {
		return w.client.Resource(mapping.Resource).Namespace(namespace), nil
	}
	return w.client.Resource(mapping.Resource), nil
}
